"""Who runs a round's blocks: this process one after another, or workers elsewhere (``fl_sim/executors/ray/executor.py``). No paper.

Whoever it is, results come back in the order of the plans, which a config fixes; so the digest does not depend on it.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from fl_sim.blocks.plan import BlockPlan
from fl_sim.engines.results import BlockResult
from fl_sim.tree import Tree
from fl_sim.wire.pool import Pool


class Executor(ABC):
    """Runs blocks, and central evaluation."""

    engine: str
    """Engine of a block: loop or vmap."""
    chunk: int
    """Clients of a block that run at once, 0: all; halved where memory ran out."""
    runs: int = 1
    """Runs that share this process's time."""
    on_event: Callable[..., None] = staticmethod(lambda kind, **facts: None)
    """Told what is worth a line in the log (a worker that died)."""

    @abstractmethod
    def run(self, plans: Sequence[BlockPlan], model: Tree, pool: Pool | None) -> Iterator[BlockResult]:
        """Results in the order of ``plans``. ``model`` is on the learner's device. Raises RoundFailed where a block cannot be run."""

    @abstractmethod
    def evaluate(self, model: Tree, data: Tree) -> dict[str, float]:
        """``fl_sim.engines.evaluate.evaluate``, bit for bit."""

    def summary(self) -> dict[str, Any]:
        """Facts for summary.json."""
        return {}

    def close(self) -> None:
        """Let workers go; a second call does nothing."""
        return
