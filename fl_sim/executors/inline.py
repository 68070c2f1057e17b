"""The executor that runs blocks in this process, one after another."""

from collections.abc import Iterator, Sequence

from torch import Tensor

from fl_sim.blocks.learner import Learner
from fl_sim.blocks.plan import BlockPlan
from fl_sim.engines.evaluate import evaluate
from fl_sim.engines.results import BlockResult
from fl_sim.engines.run_block import run_plan
from fl_sim.executors.base import Executor
from fl_sim.kernels.cuda_graphs import GraphRecorder
from fl_sim.tree import Tree
from fl_sim.wire.pool import Pool


class Inline(Executor):
    """Runs blocks in this process, one after another."""

    def __init__(self, learner: Learner, engine: str = "loop", chunk: int = 0) -> None:
        self.learner, self.engine, self.chunk = learner, engine, chunk
        self.recorder = GraphRecorder()
        """CUDA graphs of evaluations, apart from the learner's recorder, which often drops old graphs."""

    def run(self, plans: Sequence[BlockPlan], model: Tree, pool: Pool | None) -> Iterator[BlockResult]:
        """Run each block when its result is requested."""
        if self.learner.silo is not None:
            self.learner.silo.on_event = self.on_event
        for plan in plans:
            result = run_plan(plan, model, self.learner, self.engine, self.chunk, pool)
            self.chunk = result.chunk
            yield result

    def evaluate(self, model: Tree, data: Tree, rows: Tensor | None = None) -> dict[str, float]:
        """Evaluate in this process; CUDA graphs are for sets that are evaluated as a whole."""
        return evaluate(self.learner.loss, model, data, self.recorder if rows is None else None, rows)

    def summary(self) -> dict[str, object]:
        """What the silo tells of its processes; without one nothing."""
        return {} if self.learner.silo is None else self.learner.silo.summary()

    def close(self) -> None:
        """End the silo's processes."""
        if self.learner.silo is not None:
            self.learner.silo.close()
