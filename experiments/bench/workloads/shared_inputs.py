"""What every system but ours trains on: arrays, partition, cohorts and first weights, read from the files that ``prepare`` wrote. No paper.

Legend: N samples, n a client's samples.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from fl_sim import registry, rng

FILES = ("train_x", "train_y", "test_x", "test_y", "indices", "starts", "cohorts", "mean", "std")


class World:
    """The same data, clients and cohorts for all."""

    def __init__(self, job: Mapping[str, Any]) -> None:
        self.folder, self.work = Path(job["folder"]), job["work"]
        arrays = {name: np.load(self.folder / f"{name}.npy", mmap_mode="c") for name in FILES}
        self.x, self.y, self.test_x, self.test_y = (torch.from_numpy(arrays[name]) for name in FILES[:4])
        self.mean, self.std = torch.from_numpy(arrays["mean"]), torch.from_numpy(arrays["std"])
        self.indices, self.starts = arrays["indices"], arrays["starts"]
        self.cohorts: list[list[int]] = arrays["cohorts"].tolist()
        """The clients of round 1, 2, ...: the same for all, so that an uneven partition is the same work."""

    def __len__(self) -> int:
        """How many clients."""
        return len(self.starts) - 1

    def rows(self, c: int) -> Tensor:
        """(n,) which samples client c owns."""
        return torch.from_numpy(self.indices[self.starts[c] : self.starts[c + 1]])

    def size(self, c: int) -> int:
        """n."""
        return int(self.starts[c + 1] - self.starts[c])

    def floats(self, x: Tensor) -> Tensor:
        """Stored pixels as model inputs."""
        return (x.float() / 255 - self.mean) / self.std

    def client(self, c: int) -> tuple[Tensor, Tensor]:
        """Inputs (n, ...) and labels (n,) of client c."""
        rows = self.rows(c)
        return self.floats(self.x[rows]), self.y[rows]

    def orders(self, server_round: int, c: int) -> Iterator[Tensor]:
        """Positions 0..n-1 of a shuffled pass, in batches."""
        order = torch.from_numpy(rng.permutation(rng.key(0, "bench-order", server_round, c), self.size(c)))
        return iter(torch.split(order, self.work["batch"]))

    def new_module(self) -> nn.Module:
        """The model with weights of its own."""
        made: nn.Module = registry.find("clients.models", "model", self.work["model"])(tuple(self.x.shape[1:]), 10)
        return made

    def module(self) -> nn.Module:
        """The model with the weights that all start from."""
        module = self.new_module()
        module.load_state_dict(load_file(self.folder / "initial.safetensors"))
        return module

    def accuracy(self, module: nn.Module) -> float:
        """On the test samples, without training-time randomness."""
        training = module.training
        module.eval()
        with torch.no_grad():
            parts = [
                module(self.floats(x)).argmax(-1) == y
                for x, y in zip(torch.split(self.test_x, 500), torch.split(self.test_y, 500), strict=True)
            ]
        module.train(training)
        return float(torch.cat(parts).double().mean())
