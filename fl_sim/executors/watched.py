"""The executor that runs each block in a forked process and watches it: a client that hangs, or dies, fails alone.

A forked process reads the memory of this one without a copy, and computes the same bits. On the loop it tells when a
client is done, so that the limit holds for each client. On vmap a block's clients train at once, and the limit holds
for the batch. Where a block takes longer, or its process dies, its clients run one by one on the loop, each in a
process of its own: that names the client whose fault it is.
"""

import os
from collections.abc import Iterator, Sequence

import torch

from fl_sim.blocks.learner import Learner
from fl_sim.blocks.plan import BlockPlan, alone
from fl_sim.blocks.resolve import Block
from fl_sim.engines.choose import ENGINES, Engine, Outcome
from fl_sim.engines.results import BlockResult, joined
from fl_sim.engines.run_block import failed_result, run_plan
from fl_sim.executors.forked import Beat, Lost, call_forked
from fl_sim.executors.inline import Inline
from fl_sim.tree import Tree
from fl_sim.wire.pool import Pool


class Watched(Inline):
    """Runs blocks one after another, each in a forked process. Only for blocks on the CPU: a GPU cannot be forked.

    Parameters
    ----------
    learner, engine, chunk
        As for ``Inline``.
    limit_s : float
        Seconds that a client may take on the loop, and a block's batch on vmap.

    Raises
    ------
    ValueError
        Where this system has no ``fork``.
    """

    def __init__(self, learner: Learner, engine: str, chunk: int, limit_s: float) -> None:
        if not hasattr(os, "fork"):
            raise ValueError(f"client_timeout = {limit_s:g}: this system cannot fork processes; leave it out")
        super().__init__(learner, engine, chunk)
        if engine == "vmap":  # loads here what each forked process would load again
            torch.func.vmap(torch.func.grad(torch.square))(torch.ones(2))
        self.limit_s = limit_s

    def run(self, plans: Sequence[BlockPlan], model: Tree, pool: Pool | None) -> Iterator[BlockResult]:
        """Run each block when its result is requested."""
        for plan in plans:
            result = self._block(plan, model, pool)
            self.chunk = result.chunk
            yield result

    def _block(self, plan: BlockPlan, model: Tree, pool: Pool | None) -> BlockResult:
        answer = self._forked(plan, model, self.engine, self.chunk, pool)
        if isinstance(answer, BlockResult):
            return answer
        if len(plan.orders) == 1:
            return self._of_lost(plan, answer)
        singles = []
        for one in alone(plan):
            single = self._forked(one, model, "loop", 1, pool)
            singles.append(single if isinstance(single, BlockResult) else self._of_lost(one, single))
        result = joined(plan, singles, pool, self.chunk)
        result.notes.append(f"{self.engine}: {answer.reason}; the block's clients ran one by one on the loop")
        result.bits_changed = True
        return result

    def _of_lost(self, plan: BlockPlan, lost: Lost) -> BlockResult:
        """The result of the only client of ``plan``, whose process hung or died."""
        [order] = plan.orders
        kind = "client_timeout" if lost.timed_out else "client_died"
        self.on_event(kind, block=plan.number, client=order.client, reason=lost.reason)
        clients = [failed_result(order, self.learner, lost.reason)]
        return BlockResult(plan, clients, chunk=self.chunk, bits_changed=True)

    def _forked(self, plan: BlockPlan, model: Tree, engine: str, chunk: int, pool: Pool | None) -> BlockResult | Lost:
        def work(beat: Beat) -> BlockResult:
            for name in ENGINES:  # of the forked process only
                ENGINES[name] = _telling(ENGINES[name], beat)
            result = run_plan(plan, model, self.learner, engine, chunk, pool)
            result.plan = None  # type: ignore[assignment]  # this process has it
            return result

        answer: BlockResult | Lost = call_forked(work, self.limit_s)
        if isinstance(answer, BlockResult):
            answer.plan = plan
        return answer


def _telling(engine: Engine, beat: Beat) -> Engine:
    """The engine, which tells when some of its clients are done."""

    def run(block: Block, model: Tree, learner: Learner, chunk: int) -> Iterator[Outcome]:
        for outcome in engine(block, model, learner, chunk):
            beat()
            yield outcome

    return run
