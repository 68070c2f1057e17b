"""The inputs of all systems but ours: data, partition, cohorts and initial model, read from the files of ``prepare``.

Legend: n number of a client's samples.
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
"""Names of the array files in the job's folder, without ``.npy``."""


class SharedInputs:
    """Data, partition, cohorts and initial model of one workload, the same for every system."""

    def __init__(self, job: Mapping[str, Any]) -> None:
        self.folder, self.work = Path(job["folder"]), job["work"]
        arrays = {name: np.load(self.folder / f"{name}.npy", mmap_mode="c") for name in FILES}
        self.x, self.y, self.test_x, self.test_y = (torch.from_numpy(arrays[name]) for name in FILES[:4])
        self.mean, self.std = torch.from_numpy(arrays["mean"]), torch.from_numpy(arrays["std"])
        self.indices, self.starts = arrays["indices"], arrays["starts"]
        self.cohorts: list[list[int]] = arrays["cohorts"].tolist()
        """The clients of each round. All systems train these, so that an uneven partition is the same work for all."""

    def __len__(self) -> int:
        """Number of clients."""
        return len(self.starts) - 1

    def rows(self, c: int) -> Tensor:
        """Indices (n,) of the samples that client ``c`` owns."""
        return torch.from_numpy(self.indices[self.starts[c] : self.starts[c + 1]])

    def size(self, c: int) -> int:
        """Number of samples of client ``c``."""
        return int(self.starts[c + 1] - self.starts[c])

    def model_inputs(self, x: Tensor) -> Tensor:
        """Stored pixels as model inputs: scaled to [0, 1], then standardised."""
        return (x.float() / 255 - self.mean) / self.std

    def client(self, c: int) -> tuple[Tensor, Tensor]:
        """Inputs (n, ...) and labels (n,) of client ``c``."""
        rows = self.rows(c)
        return self.model_inputs(self.x[rows]), self.y[rows]

    def batches(self, server_round: int, c: int) -> Iterator[Tensor]:
        """Positions among the client's samples, shuffled and split into batches: one pass."""
        order = torch.from_numpy(rng.permutation(rng.key(0, "bench-order", server_round, c), self.size(c)))
        return iter(torch.split(order, self.work["batch"]))

    def new_module(self) -> nn.Module:
        """A new model with newly drawn weights."""
        module: nn.Module = registry.find("clients.models", "model", self.work["model"])(tuple(self.x.shape[1:]), 10)
        return module

    def initial_module(self) -> nn.Module:
        """A new model with the initial weights that all systems share."""
        module = self.new_module()
        module.load_state_dict(load_file(self.folder / "initial.safetensors"))
        return module

    def accuracy(self, module: nn.Module) -> float:
        """Accuracy on the test samples, in evaluation mode (no dropout)."""
        training = module.training
        module.eval()
        with torch.no_grad():
            correct = [
                module(self.model_inputs(x)).argmax(-1) == y
                for x, y in zip(torch.split(self.test_x, 500), torch.split(self.test_y, 500), strict=True)
            ]
        module.train(training)
        return float(torch.cat(correct).double().mean())
