"""What runs of one batch wait for: the results of their blocks, or metrics of their models."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from fl_sim.blocks.learner import Learner
from fl_sim.blocks.plan import BlockPlan
from fl_sim.blocks.resolve import Block
from fl_sim.tree import Tree
from fl_sim.wire.pool import Pool


@dataclass
class Request:
    """What a run waits for: the results of its blocks, or where ``data`` is given the metrics of its model on it."""

    model: Tree
    learner: Learner
    """The run's own: the weights with which its clients begin, and the numbers that it draws, are of its seed."""
    plans: Sequence[BlockPlan] = ()
    pool: Pool | None = None
    data: Tree | None = None
    rows: Tensor | None = None
    """The samples of ``data`` that count; None: all."""
    result: Any = None
    error: BaseException | None = None


@dataclass
class Part:
    """A resolved block of one run."""

    request: Request
    plan: BlockPlan
    block: Block
    unresolved: Mapping[int, str]
