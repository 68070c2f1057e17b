"""System ``blazefl``: BlazeFL's own FedAvg with its process pool and shared memory, one process per core.

BlazeFL starts a new pool of processes in each round; that is its design.
"""

from importlib.util import find_spec
from pathlib import Path

import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from experiments.bench.children.protocol import Facts, ParentConnection, Unavailable, serve
from experiments.bench.children.round_loop import drive
from experiments.bench.workloads.shared_inputs import SharedInputs

_inputs: dict[str, SharedInputs] = {}
"""Inputs by folder. Read before BlazeFL forks its processes, which inherit them."""


class InitialModels:
    """Builds the model, in the form of BlazeFL's ``ModelSelector``."""

    def __init__(self, job: Facts) -> None:
        self.job = job

    def select_model(self, _: str) -> nn.Module:
        """The model with the initial weights."""
        return shared_inputs(self.job).initial_module()


class ClientDatasets:
    """The clients' samples, in the form of BlazeFL's ``PartitionedDataset``.

    It holds only the job, because BlazeFL pickles it for each client.
    """

    def __init__(self, job: Facts) -> None:
        self.job = job

    def get_dataset(self, _: object, cid: int) -> TensorDataset:
        """The samples of client ``cid``."""
        return TensorDataset(*shared_inputs(self.job).client(cid))

    def set_dataset(self, *_: object, **__: object) -> None:
        """Do nothing: BlazeFL requires the method, but nothing is stored."""

    def get_dataloader(self, type_: object, cid: int, batch_size: int, generator: object) -> DataLoader[object]:
        """Shuffled batches of client ``cid``."""
        return DataLoader(self.get_dataset(type_, cid), batch_size=batch_size, shuffle=True, generator=generator)


def shared_inputs(job: Facts) -> SharedInputs:
    """The inputs of a job; read once in a process, or inherited from its parent."""
    if job["folder"] not in _inputs:
        _inputs[job["folder"]] = SharedInputs(job)
    return _inputs[job["folder"]]


class BlazeFLRun:
    """Server and clients of one run."""

    def __init__(self, job: Facts) -> None:
        from blazefl.contrib import FedAvgBaseServerHandler, FedAvgProcessPoolClientTrainer
        from blazefl.core import IPCMode

        self.inputs, work = shared_inputs(job), job["work"]
        folder = Path(job["folder"], "blazefl")
        common: dict[str, object] = {
            "model_selector": InitialModels(job),
            "model_name": "",
            "dataset": ClientDatasets(job),
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
        """Do one round, as the main loop of BlazeFL's examples does."""
        cohort = self.inputs.cohorts[number]
        self.trainer.local_process(self.server.downlink_package(), cohort)
        packages = self.trainer.uplink_package()
        for package in packages:
            self.server.load(package)
        return {"updates": len(packages), "examples": sum(package.data_size for package in packages)}

    def accuracy(self) -> float:
        """The accuracy of the global model on the test samples."""
        return self.inputs.accuracy(self.server.model)


def main(parent: ParentConnection) -> Facts:
    """Run the system for the parent."""
    if find_spec("blazefl") is None:
        raise Unavailable("blazefl is not installed: its releases need Python >= 3.12, then pip install -e '.[bench]'")
    torch.set_num_threads(1)
    return drive(parent, lambda: BlazeFLRun(parent.job))


if __name__ == "__main__":
    serve(main)
