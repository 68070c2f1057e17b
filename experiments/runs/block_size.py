"""The default number of clients in a block, and whether such blocks are worth their padding."""

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from experiments.config.schema import Config
from fl_sim.blocks.learner import Learner
from fl_sim.blocks.plan import plan_blocks
from fl_sim.engines.choose import CONVOLUTIONS, CONVOLUTIONS_BY_RULE, DENSE, Choice, worth
from fl_sim.learning.loss import Loss
from fl_sim.learning.networks.gradient_check import runs_on_vmap, vmap_problem
from strategies.base.cohort import choose, stragglers
from strategies.base.strategy import Strategy

BLOCK = 16
"""Most clients in a block of the loop engine."""
BATCH = 64
"""Most clients in a block of the vmap engine, if their weights take no more memory than ROOM."""
ROOM = {"cpu": 64 * 2**20, "gpu": 2 * 2**30}
"""Most bytes that the weights of all clients of a vmap block take together; beyond it more clients bring no speed."""


def block_size(engine: str, cohort: int, loss: Loss) -> int:
    """Clients in a block where the config sets no ``block_size``: a fixed rule that ignores the number of workers.

    The loop cuts a round into sixteen blocks or more, which any small number of workers can share. vmap gains from each
    client of a block (logistic regression in blocks of 64 takes 0.53 of the time of blocks of 16, the 2NN 0.70): up to
    BATCH clients. On a CPU a round is cut into four blocks or more unless they had fewer than BLOCK clients; a GPU is
    filled by one process with large blocks.

    Parameters
    ----------
    engine : str
        ``loop`` or ``vmap``.
    cohort : int
        Clients in a round.
    loss : Loss
        The model and its device.
    """
    if engine != "vmap":
        return min(BLOCK, math.ceil(cohort / BLOCK))
    gpu = loss.device.type != "cpu"
    weights = sum(v.numel() * v.element_size() for v in loss.initial().values())
    most = BATCH if gpu else min(BATCH, math.ceil(cohort / 4))
    return max(BLOCK, min(most, ROOM["gpu" if gpu else "cpu"] // max(weights, 1)))


ROUNDS, CLIENTS = 4, 100
"""Most rounds that are drawn to see how full blocks are; fewer where they have more clients than CLIENTS."""


def fitted(
    config: Config, engine: Choice, learner: Learner, strategy: Any, settings: Mapping[str, Any]
) -> tuple[Choice, Config]:
    """(the engine by ``by_sizes``, the config with the block size that goes with it)."""
    engine = by_sizes(config, engine, learner, strategy, settings)
    cohort = config.together or len(learner.partition.working(0, len(learner.partition) - config.never_train))
    return engine, replace(config, block_size=config.block_size or block_size(engine.name, cohort, learner.loss))


def by_sizes(config: Config, engine: Choice, learner: Learner, strategy: Any, settings: Mapping[str, Any]) -> Choice:
    """The engine of a run: ``engine``, or the other one where sizes speak for it and ``auto`` chose on a CPU.

    That is the loop where padding eats the gain of vmap, and vmap where ``engine`` is the loop for its convolutions,
    and these are small, or the strategy takes derivatives itself. It follows from the sizes of clients, not from a
    time, nor from the run's seed: cohorts and stragglers are drawn with seed 0. ``settings`` are those of the run's
    messages for training.
    """
    asked = config.ray.engine if config.engine == "ray" else config.engine
    clients = learner.partition.working(0, len(learner.partition) - config.never_train)
    open_to_both = engine.name == "vmap" or engine.by_convolutions
    if asked != "auto" or not open_to_both or config.device != "cpu" or config.chunk or not len(clients):
        return engine
    cohort = config.together or len(clients)
    size = config.block_size or block_size("vmap", cohort, learner.loss)
    sent = Strategy.round_settings(strategy, 1, settings) if isinstance(strategy, Strategy) else settings
    drops = getattr(strategy, "partial_work", "keep") == "drop"
    steps = batched = blocks = members = samples = 0
    for number in range(1, max(min(ROUNDS, CLIENTS // cohort), 1) + 1):
        chosen = [int(clients[i]) for i in choose(len(clients), cohort, 0, number)]
        work = stragglers(chosen, 0, number, sent)
        shares = {share: {**sent, "server-round": 1, "system.work": share} for share in {1.0, *work.values()}}
        rest = [c for c in chosen if not (drops and c in work)]
        orders = ((position, c, shares[work.get(c, 1.0)]) for position, c in enumerate(rest))
        for plan in plan_blocks(learner, "train", orders, {}, size):
            counts = [order.steps for order in plan.orders]
            steps, batched = steps + sum(counts), batched + max(counts)
            blocks, members = blocks + 1, members + len(counts)
            samples += sum(learner.partition.sizes(order.client)[0] for order in plan.orders)
    model = learner.loss.initial()
    parameters = sum(model[k].numel() for k in learner.loss.trainable)
    batch = config.local.batch_size or samples // max(members, 1)  # 0: all samples of a client
    by_rule = bool(getattr(strategy, "own_derivatives", False))
    costs = (CONVOLUTIONS_BY_RULE if by_rule else CONVOLUTIONS) if engine.by_convolutions else DENSE
    found = worth(steps, batched, members / max(blocks, 1), parameters, batch, costs)
    if engine.by_convolutions:
        pays = found.name == "vmap" and steps > 0
        if pays and ":" in config.model.name:  # a user's own network
            pays = runs_on_vmap(learner.loss) and not vmap_problem(learner.loss)
        return replace(engine, name="vmap", by_convolutions=False) if pays else engine
    if found.name == "vmap":
        return engine
    return Choice(found.name, "; ".join(filter(None, (found.reason, engine.reason))), found.by_sizes)
