"""The loop engine: one client after another. Other engines are compared with it, and it serves debugging."""

import traceback
from collections.abc import Iterator

from fl_sim import rng, tree
from fl_sim.blocks.learner import Learner
from fl_sim.blocks.padding import plain_batches
from fl_sim.blocks.resolve import Block, Job
from fl_sim.blocks.wave import model_of
from fl_sim.engines.advice import with_advice
from fl_sim.engines.outcome import Outcome
from fl_sim.engines.set_evaluation import split
from fl_sim.learning.returned import call
from fl_sim.tree import Tree


def run_loop(block: Block, model: Tree, learner: Learner, chunk: int = 1) -> Iterator[Outcome]:
    """Run each client by itself, without padding. A client that raises gets an outcome of its own with the traceback.

    PyTorch's global generator is keyed by client and round, for models that draw from it (functional dropout).
    """
    for job in block.jobs:
        try:
            reply, state, metrics = of_client(block, job, model, learner)
        except KeyboardInterrupt:
            raise
        except BaseException:  # sys.exit too is the failure of the client that called it
            yield Outcome([job], error=with_advice(traceback.format_exc(), job, block.local))
            continue
        stacked = {k: v.detach()[None] for k, v in reply.items()}
        metrics, parts = split(metrics)
        numbers = {k: v.detach().reshape(1) for k, v in metrics.items()}
        numbers |= {k: v.detach()[None] for k, v in parts.items()}
        yield Outcome([job], stacked, {k: v.detach()[None] for k, v in state.items()}, numbers)


def of_client(block: Block, job: Job, model: Tree, learner: Learner) -> tuple[Tree, Tree, Tree]:
    """(reply, new state, metrics) of one client, in this process; where the learner has a silo, it trains there."""
    block, model = block.of(job), model_of(model, job.launch)
    if learner.silo is not None and block.rule.reply_kind != "none":  # personal evaluation runs here
        return learner.silo.train(block, job, model, learner)
    device = learner.loss.device
    batches = {name: plain_batches(learner.data, job, name, learner.partition, device) for name in job.streams}
    with rng.keyed_globals(job.draw("globals")):
        received, state = tree.clone(model), tree.clone(job.state)
        return call(block.rule, received, state, batches, learner.loss, block.local)


def reply_of(block: Block, model: Tree, learner: Learner) -> tuple[Tree, dict[str, float]]:
    """The reply and metrics of a block's first client, without catching exceptions: for replay and ``--pdb``."""
    reply, _, metrics = of_client(block, block.jobs[0], model, learner)
    return reply, {k: float(v) for k, v in split(metrics)[0].items()}
