"""What no silo can train, refused by name before any work.

What is known is refused by its name. The rest shows on a few samples: the gradient of a batch must be that of its
parts, and a client's first steps in shards must be its first steps on whole batches.
"""

import torch

from fl_sim import rng, tree
from fl_sim.blocks.learner import Learner
from fl_sim.blocks.padding import plain_batches
from fl_sim.blocks.plan import BlockPlan
from fl_sim.blocks.resolve import Block, Job, resolve
from fl_sim.errors import ConfigError
from fl_sim.kernels.layers import has_batch_norm
from fl_sim.learning.batch import Batch
from fl_sim.learning.loss import Loss
from fl_sim.learning.returned import call
from fl_sim.learning.sharded.sharded_loss import ShardedLoss
from fl_sim.tree import Tree

ROUNDING = {torch.float64: 1e-9, torch.float32: 1e-4}
"""Largest difference of a gradient in shards from that of the batch, as a share of its norm."""
COARSE = 0.05
"""The same for half precision; and for what a rule makes of its gradients, which may be differences of them."""
STEPS = 2
"""Steps of a client that are tried, of each of its streams."""


def check_silo(
    plan: BlockPlan, learner: Learner, message: Tree, shards: int, strategy: str, model: str, task: str
) -> None:
    """Raise ConfigError where a silo with batches of ``shards`` parts would train something else than one process.

    Parameters
    ----------
    plan : BlockPlan
        A block of one client.
    learner : Learner
        Samples, loss and rules.
    message : Tree
        What the client receives: model and payload.
    shards : int
        S, of ``silo.shards``.
    strategy, model, task : str
        Their names in messages.
    """
    rule, start = learner.rule(plan.message_type, plan.settings), learner.loss.initial()
    if rule.whole_batches:
        raise ConfigError(f"strategy.name = {strategy!r}, in a silo: {rule.whole_batches}; or leave out silo.processes")
    if shards > 1:
        check_network(learner.loss, shards, model)
    if (where := unlike(learner.loss, shards, start)) and shards > 1:
        what = f"the gradient of a batch is not the mean over its {shards} shards ({where})"
        why = "the loss is no mean over samples, or network or transform draw random numbers other than by nn.Dropout"
        raise ConfigError(f"task.name = {task!r}, model.name = {model!r}, in a silo: {what}: {why}; {CURE}")
    block, unresolved = resolve(plan, learner, message)
    if not unresolved:
        check_rule(block, learner, message, shards, strategy)


CURE = "leave out silo.processes"


def check_network(loss: Loss, shards: int, model: str) -> None:
    """Raise ConfigError for a network that computes with a batch as a whole, or writes into buffers as it trains."""
    cure = "or give --silo.processes 1 --silo.shards 1"
    if has_batch_norm(loss.training):
        what = f"BatchNorm normalises by a batch's statistics, and silo.shards = {shards} cuts batches into parts"
        raise ConfigError(f"model.name = {model!r}, in a silo: {what}; use GroupNorm (cnn-gn), {cure}")
    if loss.writes.buffers:
        names = ", ".join(sorted(loss.writes.buffers))
        what = f"it writes into buffers ({names}) as it trains, once for each of silo.shards = {shards} parts"
        raise ConfigError(f"model.name = {model!r}, in a silo: {what}; use one that does not, {cure}")


def unlike(loss: Loss, shards: int, model: Tree) -> str:
    """Where the gradient of a batch in shards differs from the batch's own beyond rounding; empty: nowhere."""
    count = min(2 * shards + 1, loss.task.num_train)
    if count < 2:
        return ""
    rows = torch.linspace(0, loss.task.num_train - 1, count, dtype=torch.float64).long()
    batch = Batch({k: v[rows].to(loss.device) for k, v in loss.task.train.items()}, rng.words(0).to(loss.device))
    found = []
    for each in (loss, ShardedLoss(loss, shards)):
        with rng.keyed_globals(0):
            grads, value, _ = each.gradient(model, batch)
            found.append({**grads, "the loss": value})
    most = COARSE if loss.precision == "bf16" else ROUNDING.get(loss.dtype, COARSE)
    floor = most * float(tree.norm(found[0])) * 1e-3  # below this a leaf's gradient is rounding
    for name, whole in found[0].items():
        off = float((found[1][name] - whole).norm())
        if not off <= most * float(whole.norm()) + floor:
            return f"{name}: off by {off:.2g} of {float(whole.norm()):.2g}"
    return ""


def check_rule(block: Block, learner: Learner, model: Tree, shards: int, strategy: str) -> None:
    """Raise ConfigError for a rule whose reply after a few steps in shards is not that after the same steps without.

    Where the rule itself raises, the run will tell.
    """
    [job] = block.jobs
    few = {name: [step[: 2 * shards + 1] for step in steps[:STEPS]] for name, steps in job.streams.items()}
    job = Job(job.position, job.client, job.sizes, few, job.draw, job.state)
    try:
        whole = _reply(block, job, learner, model, learner.loss)
    except Exception:
        return
    try:
        parts = _reply(block, job, learner, model, ShardedLoss(learner.loss, shards))
    except ConfigError as error:
        raise ConfigError(f"strategy.name = {strategy!r}: {error}") from error
    base = model if block.rule.reply_kind == "weights" else {}
    moved = sum(float((x - base[k] if k in base else x).double().square().sum()) for k, x in whole.items())
    size = sum(float(x.double().square().sum()) for x in whole.values())
    off = sum(float((parts[k] - x).double().square().sum()) for k, x in whole.items())
    if not off**0.5 <= COARSE * moved**0.5 + 1e-6 * size**0.5:
        what = f"its reply in {shards} shards differs from that of one process by {off**0.5:.2g} of {moved**0.5:.2g}"
        why = "it reads batches beside loss.gradient"
        raise ConfigError(f"strategy.name = {strategy!r}, in a silo: {what}: {why}; {CURE}")


def _reply(block: Block, job: Job, learner: Learner, model: Tree, loss: Loss) -> Tree:
    batches = {n: plain_batches(learner.data, job, n, learner.partition, loss.device) for n in job.streams}
    with rng.keyed_globals(job.draw("globals")):
        received, state = tree.clone(model), tree.clone(job.state)
        return call(block.rule, received, state, batches, loss, block.local)[0]
