"""Everything that training needs besides a message, and how a message's settings are read."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from fl_sim.kernels.cuda_graphs import GraphRecorder
from fl_sim.learning.loss import Loss
from fl_sim.learning.rule import LocalRule
from fl_sim.learning.settings import Local
from fl_sim.population.partition import Partition
from fl_sim.tree import Tree

Settings = Mapping[str, Any]
"""What a message's ConfigRecord says: dotted keys to numbers and words."""


@dataclass(frozen=True)
class Learner:
    """All that training needs besides a message: the shared samples, who owns which, the loss, and how to find a rule."""

    loss: Loss
    data: Tree
    """All clients' samples, shared and read-only, on the loss's device."""
    partition: Partition
    rule: Callable[[str, Settings], LocalRule]
    """``(message type, settings) -> rule``."""
    recorder: GraphRecorder = field(default_factory=GraphRecorder, compare=False, repr=False)
    """Keeps a GPU's chunks that come again as graphs."""


def local_settings(settings: Settings, server_round: int) -> Local:
    """The ``local.*`` settings of a message, with the learning rate of this round by its schedule."""
    given = {k.removeprefix("local."): v for k, v in settings.items() if k.startswith("local.")}
    local = Local(**given)
    return replace(local, lr=local.lr_at(server_round, int(settings.get("rounds", 1))), lr_schedule="constant")
