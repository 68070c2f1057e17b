"""The silo of one process: the same shards in the same order as in one of several, which is compared with it."""

from fl_sim import rng, tree
from fl_sim.blocks.client_silo import ClientSilo
from fl_sim.blocks.learner import Learner
from fl_sim.blocks.padding import plain_batches
from fl_sim.blocks.resolve import Block, Job
from fl_sim.learning.loss import Loss
from fl_sim.learning.returned import call
from fl_sim.learning.sharded.sharded_loss import ShardedLoss
from fl_sim.tree import Tree


class OneProcess(ClientSilo):
    """Trains a client in this process, each batch in ``shards`` parts."""

    def __init__(self, shards: int) -> None:
        self.shards = shards
        self._known: tuple[Loss, ShardedLoss] | None = None

    def __getstate__(self) -> dict[str, object]:
        """Without the loss, which the learner of another process has."""
        return {"shards": self.shards, "_known": None}

    def train(self, block: Block, job: Job, model: Tree, learner: Learner) -> tuple[Tree, Tree, Tree]:
        """(reply, new state, metrics) of one client, as the loop computes them but for the sum over shards."""
        if self._known is None or self._known[0] is not learner.loss:
            self._known = learner.loss, ShardedLoss(learner.loss, self.shards)
        loss = self._known[1]
        batches = {n: plain_batches(learner.data, job, n, learner.partition, loss.device) for n in job.streams}
        with rng.keyed_globals(job.draw("globals")):
            received, state = tree.clone(model), tree.clone(job.state)
            return call(block.rule, received, state, batches, loss, block.local)
