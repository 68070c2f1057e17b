"""Everything that training needs besides a message, and how a message's settings are read."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from fl_sim.blocks.client_silo import ClientSilo
from fl_sim.dotted import table
from fl_sim.kernels.cuda_graphs import GraphRecorder
from fl_sim.learning.loss import Loss
from fl_sim.learning.rule import LocalRule
from fl_sim.learning.settings import Local
from fl_sim.population.partition import Partition
from fl_sim.tree import Tree
from fl_sim.wire.codec import Coding, no_coding

Settings = Mapping[str, Any]
"""The content of a message's ConfigRecord: dotted keys to numbers and strings."""


@dataclass(frozen=True)
class Learner:
    """Everything that training needs besides a message: samples, partition, loss, and how to find a rule."""

    loss: Loss
    data: Tree
    """The samples of all clients, shared and read-only, on the loss's device."""
    partition: Partition
    rule: Callable[[str, Settings], LocalRule]
    """``(message type, settings) -> rule``."""
    recorder: GraphRecorder = field(default_factory=GraphRecorder, compare=False, repr=False)
    """Keeps CUDA graphs of chunks of one kind that occur repeatedly."""
    silo: ClientSilo | None = field(default=None, compare=False, repr=False)
    """Trains each client in the place of the loop engine; None: the loop trains it, in this process."""
    log_drift: bool = False
    """Whether blocks add up their clients' updates, for the columns ``drift`` and ``cosine``."""
    coding: Callable[[Settings], Coding | None] = no_coding
    """settings of a message for training -> how its replies are coded; None: they are sent as they are."""
    keeps_codes: bool = False
    """Whether the codes themselves are in results, as on a device; else only what the server reads in them."""
    counted_work: dict[object, dict[tuple[int, ...], tuple[int, int]]] = field(
        default_factory=dict, init=False, compare=False, repr=False
    )
    """What ``fl_sim.blocks.plan.work_counter`` has counted, by what it depends on: rounds ask for the same again."""


def local_settings(settings: Settings, server_round: int) -> Local:
    """The ``local.*`` settings of a message; ``lr`` is the rate of this round, with a constant schedule."""
    local = Local(**table(settings, "local"))
    if local.lr_schedule == "constant":
        return local
    return replace(local, lr=local.lr_at(server_round, int(settings.get("rounds", 1))), lr_schedule="constant")
