"""The settings of silos (``silo.*``): training that is itself distributed inside each client."""

import os
import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Annotated, Literal

from annotated_types import Ge, Gt, Le

from fl_sim.errors import ConfigError

if TYPE_CHECKING:
    import torch

MOST = 256
"""Most processes of a silo, and most shards of a batch."""


def has_shared_memory() -> bool:
    """Whether this system has what ``clients.silo.sum_memory`` needs, as Linux has."""
    return all(hasattr(os, name) for name in ("memfd_create", "eventfd", "posix_fallocate"))


@dataclass(frozen=True)
class Silo:
    """Training that is itself distributed inside each client (``silo.*``), used where ``silo.processes`` is not 0."""

    processes: Annotated[int, Ge(0), Le(MOST)] = 0
    """Processes that share each batch of a client's training; 0: no silo; 1: the same shards in one process."""
    shards: Annotated[int, Ge(1), Le(MOST)] = 4
    """Parts into which each batch is cut; their gradients are summed in a fixed tree, which determines the bits."""
    reduce: Literal["ordered", "library", "ring", "server"] = "ordered"
    """How gradients are summed. ordered: the bits of one process; those of the others depend on silo.processes."""
    backend: Literal["auto", "gloo", "nccl"] = "auto"
    """Of torch.distributed; auto: nccl where each process has a GPU of its own, else gloo."""
    wire: Literal["auto", "memory", "sockets"] = "auto"
    """What the sums of ordered go through; auto: memory on a CPU under Linux, else sockets. Never changes a result."""
    shares: str = ""
    """Shards of each process, as 3,1; empty: equal. Never changes a result of ordered."""
    balance: bool = False
    """Whether shards move between the processes, by their measured speed. Never changes a result of ordered."""
    timeout: Annotated[float, Gt(0)] = 300.0
    """Seconds without a step of any process, after which those that compute hang, and the client begins again."""

    def check(self, engine: str, client_timeout: float) -> None:
        """Raise ConfigError for numbers that contradict each other, or the run's engine and time limit of clients."""
        if not self.processes:
            return
        if self.processes > self.shards:
            what = f"each process needs a shard of each batch, and silo.shards = {self.shards}"
            raise ConfigError(f"silo.processes = {self.processes}: {what}; give at most that, or more shards")
        if engine in ("vmap", "flower"):
            why = {
                "vmap": "vmap trains a block's clients as one batch in one process",
                "flower": "Flower's simulation has processes of its own",
            }[engine]
            raise ConfigError(f"engine = {engine!r}: {why}, and silo.processes = {self.processes}; use loop or ray")
        if self.processes > 1 and client_timeout:
            why = "each block would run in a forked process, whose silo would start anew"
            cure = "give --silo.timeout, or use --engine ray"
            raise ConfigError(f"client_timeout = {client_timeout:g}: {why}; {cure}")
        if self.balance and self.reduce != "ordered":
            why = (
                f"shards move by measured speed, and the bits of silo.reduce = {self.reduce!r} depend on where they are"
            )
            raise ConfigError(f"silo.balance = True: {why}, so that no run could be repeated; use ordered")
        if self.wire == "memory" and self.reduce != "ordered":
            why = f"silo.reduce = {self.reduce!r} sums by sending and receiving"
            raise ConfigError(f"silo.wire = 'memory': {why}; use auto, or ordered")
        self.edges()

    def check_device(self, device: "torch.device") -> None:
        """Raise ConfigError for a backend or wire that the device, or the number of its kind, does not have."""
        import torch  # imported here, because settings and their help are read without it

        if self.backend == "nccl" and (device.type != "cuda" or torch.cuda.device_count() < self.processes):
            count = torch.cuda.device_count() if device.type == "cuda" else 0
            what = f"each of silo.processes = {self.processes} needs a GPU of its own, and there are {count}"
            raise ConfigError(f"silo.backend = 'nccl': {what} (device = {str(device)!r}); use gloo")
        if self.wire == "memory" and self.processes > 1 and not self.in_memory(device):
            what = "processes share memory only on a CPU, under Linux"
            raise ConfigError(f"silo.wire = 'memory': {what} (device = {str(device)!r}, {sys.platform}); use sockets")

    def in_memory(self, device: "torch.device") -> bool:
        """Whether the ranks add through shared memory: as ``wire`` says, and nothing else that happens."""
        fits = self.processes > 1 and self.reduce == "ordered" and device.type == "cpu" and has_shared_memory()
        return fits and self.wire != "sockets"

    def edges(self) -> list[int]:
        """(P + 1,) the first shard of each process, and S. Raises ConfigError for ``shares`` that do not fit."""
        if not self.shares:
            size, more = divmod(self.shards, self.processes)
            return [r * size + min(r, more) for r in range(self.processes + 1)]
        cure = f"give {self.processes} numbers from 1 on whose sum is silo.shards = {self.shards}"
        if not re.fullmatch(r"0*[1-9]\d{0,3}(,0*[1-9]\d{0,3})*", self.shares, re.ASCII):
            raise ConfigError(f"silo.shares = {self.shares!r}: must be the shards of each process, as 3,1; {cure}")
        numbers = [int(x) for x in self.shares.split(",")]
        if len(numbers) != self.processes or sum(numbers) != self.shards:
            what = f"{len(numbers)} numbers with the sum {sum(numbers)} for silo.processes = {self.processes}"
            raise ConfigError(f"silo.shares = {self.shares!r}: {what}; {cure}")
        return [sum(numbers[:r]) for r in range(self.processes + 1)]

    @property
    def idle(self) -> Mapping[str, str]:
        """The settings that do nothing beside the others, by dotted key, and why."""
        every = [f"silo.{f.name}" for f in fields(self) if f.name != "processes"]
        if not self.processes:
            return dict.fromkeys(every, "acts on silos; set silo.processes too")
        between = (
            "silo.reduce",
            "silo.wire",
            "silo.shares",
            "silo.balance",
            *(("silo.timeout",) if self.backend == "auto" else ()),
        )
        return {} if self.processes > 1 else dict.fromkeys(between, "acts between processes; give silo.processes 2")


NO_SILO = Silo()
"""Each client trains in one process, on whole batches."""
