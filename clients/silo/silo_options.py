"""The settings of silos (``silo.*``): training that is itself distributed inside each client."""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Annotated

from annotated_types import Ge, Le

from fl_sim.errors import ConfigError

MOST = 256
"""Most processes of a silo, and most shards of a batch."""


@dataclass(frozen=True)
class Silo:
    """Training that is itself distributed inside each client (``silo.*``), used where ``silo.processes`` is not 0."""

    processes: Annotated[int, Ge(0), Le(MOST)] = 0
    """Processes that share each batch of a client's training; 0: no silo; 1: the same shards in one process."""
    shards: Annotated[int, Ge(1), Le(MOST)] = 4
    """Parts into which each batch is cut; their gradients are summed in a fixed tree, which determines the bits."""

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
            raise ConfigError(f"client_timeout = {client_timeout:g}: {why}; leave it out, or use --engine ray")
        if self.processes > 1:
            raise ConfigError(f"silo.processes = {self.processes}: silos of several processes come next; give 1")

    @property
    def idle(self) -> Mapping[str, str]:
        """The settings that do nothing beside the others, by dotted key, and why."""
        if not self.processes:
            rest = (f"silo.{f.name}" for f in fields(self) if f.name != "processes")
            return dict.fromkeys(rest, "acts on silos; set silo.processes too")
        return {}


NO_SILO = Silo()
"""Each client trains in one process, on whole batches."""
