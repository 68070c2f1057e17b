"""BlazeFL: the FedAvg that it ships, with its process pool and shared memory, one process a core. No paper.

It starts a new pool of processes in each round; that is its own design.
"""

from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from experiments.bench.children.protocol import Facts, Tokens, Unavailable, serve
from experiments.bench.children.round_loop import drive
from experiments.bench.workloads.shared_inputs import World

_worlds: dict[str, World] = {}
"""Read before the pools are forked, so that their processes find it here."""


class Models:
    """BlazeFL's ModelSelector."""

    def __init__(self, job: Facts) -> None:
        self.job = job

    def select_model(self, _: str) -> nn.Module:
        """The model, with the first weights."""
        return world(self.job).module()


class Clients:
    """BlazeFL's PartitionedDataset; light to send, for it goes to a worker with each client."""

    def __init__(self, job: Facts) -> None:
        self.job = job

    def get_dataset(self, _: Any, cid: int) -> TensorDataset:
        """A client's samples."""
        return TensorDataset(*world(self.job).client(cid))

    def set_dataset(self, *_: Any, **__: Any) -> None:
        """Nothing is kept."""

    def get_dataloader(self, type_: Any, cid: int, batch_size: int, generator: Any) -> DataLoader[Any]:
        """Shuffled batches."""
        return DataLoader(self.get_dataset(type_, cid), batch_size=batch_size, shuffle=True, generator=generator)


def world(job: Facts) -> World:
    """Read once a process, or inherited."""
    if job["folder"] not in _worlds:
        _worlds[job["folder"]] = World(job)
    return _worlds[job["folder"]]


class Federation:
    """Server and clients of one run."""

    def __init__(self, job: Facts) -> None:
        from blazefl.contrib import FedAvgBaseServerHandler, FedAvgProcessPoolClientTrainer
        from blazefl.core import IPCMode

        self.data, work = world(job), job["work"]
        folder = Path(job["folder"], "blazefl")
        common: dict[str, Any] = {
            "model_selector": Models(job),
            "model_name": "",
            "dataset": Clients(job),
            "device": "cpu",
            "num_clients": work["clients"],
            "batch_size": work["batch"],
            "seed": 0,
        }
        self.server = FedAvgBaseServerHandler(global_round=10**9, sample_ratio=1.0, **common)
        self.server.num_clients_per_round = work["cohort"]
        self.trainer = FedAvgProcessPoolClientTrainer(
            share_dir=folder / "share",
            state_dir=folder / "state",
            epochs=1,
            lr=work["lr"],
            num_parallels=job["cores"],
            ipc_mode=IPCMode.SHARED_MEMORY,
            **common,
        )

    def round(self, number: int) -> Facts:
        """The main loop of BlazeFL's examples."""
        cohort = self.data.cohorts[number]
        self.trainer.local_process(self.server.downlink_package(), cohort)
        packages = self.trainer.uplink_package()
        for package in packages:
            self.server.load(package)
        return {"updates": len(packages), "examples": sum(package.data_size for package in packages)}

    def accuracy(self) -> float:
        """Of the global model."""
        return self.data.accuracy(self.server.model)


def main(tokens: Tokens) -> Facts:
    """As told."""
    if find_spec("blazefl") is None:
        raise Unavailable("blazefl is not installed: its releases need Python >= 3.12, then pip install -e '.[bench]'")
    torch.set_num_threads(1)
    return drive(tokens, lambda: Federation(tokens.job))


if __name__ == "__main__":
    serve(main)
