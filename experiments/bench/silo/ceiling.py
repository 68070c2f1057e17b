"""What no silo on this machine can exceed: each rank computes its own shards, and nothing is summed between them."""

import time
from collections.abc import Sequence

import torch
import torch.distributed as dist
from torch import Tensor

from clients.silo.collectives import Distributed
from clients.silo.rank import Reducer, trained
from clients.silo.rank_work import divided
from clients.silo.silo_options import Silo
from experiments.runs.plan import first_round_plans, sent
from experiments.runs.setup import Setup
from fl_sim.blocks.resolve import resolve
from fl_sim.learning.sharded.shard_tree import summed
from fl_sim.learning.sharded.sharded_loss import Leaf, ShardedLoss


class Apart(Reducer):
    """The sum of the rank's own shards, which is all that the rank learns from."""

    def total(self, leaf: Leaf, weights: Sequence[int], like: Tensor) -> Tensor | None:
        """The sum over the rank's shards, in the order of their tree."""
        parts = [x for node in self.owned[self.wire.rank] if (x := summed(node, leaf)) is not None]
        return torch.stack(parts).sum(0) if len(parts) > 1 else parts[0]


def ceiling(setup: Setup, silo: Silo, turns: int) -> list[tuple[float, float]]:
    """(seconds, seconds of processor) of each turn, on this rank; a first turn is not counted."""
    [plan] = first_round_plans(setup)
    model, edges, rank = setup.loss.received(sent(setup)), silo.edges(), dist.get_rank()
    block, _ = resolve(plan, setup.learner, sent(setup))
    work = divided(block, block.jobs[0], model, setup.learner, edges)[rank]
    loss, times = ShardedLoss(setup.loss, silo.shards), []
    for _ in range(turns + 1):
        dist.barrier()
        start, processor = time.perf_counter(), time.process_time()
        trained(work, rank, loss, Apart(Distributed(), silo.reduce, edges, False))
        processor = time.process_time() - processor
        dist.barrier()
        times.append((time.perf_counter() - start, processor))
    return times[1:]
