"""Who runs a round's blocks: this process one after another, or workers elsewhere (``fl_sim/engine/ray.py``). No paper.

Whoever it is, results come back in the order of the plans, which a config fixes; so the digest does not depend on it.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from fl_sim.block import BlockPlan, Learner
from fl_sim.evaluate import evaluate
from fl_sim.pool import Pool
from fl_sim.recorder import Recorder
from fl_sim.tree import Tree
from fl_sim.worker import BlockResult, run_plan


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
        """``fl_sim.evaluate.evaluate``, bit for bit."""

    def summary(self) -> dict[str, Any]:
        """Facts for summary.json."""
        return {}

    def close(self) -> None:
        """Let workers go; a second call does nothing."""
        return


class Inline(Executor):
    """This process, one block after another."""

    def __init__(self, learner: Learner, engine: str = "loop", chunk: int = 0) -> None:
        self.learner, self.engine, self.chunk = learner, engine, chunk
        self.recorder = Recorder()
        """Of evaluations: training's graphs come and go."""

    def run(self, plans: Sequence[BlockPlan], model: Tree, pool: Pool | None) -> Iterator[BlockResult]:
        """Each block when its result is asked for."""
        for plan in plans:
            result = run_plan(plan, model, self.learner, self.engine, self.chunk, pool)
            self.chunk = result.chunk
            yield result

    def evaluate(self, model: Tree, data: Tree) -> dict[str, float]:
        """Here."""
        return evaluate(self.learner.loss, model, data, self.recorder)
