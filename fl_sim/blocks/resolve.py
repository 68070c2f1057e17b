"""Resolves the plan of a block: random draws decide which samples each step of each client uses.

Legend: S steps.
"""

import traceback
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from fl_sim import tree
from fl_sim.blocks.draws import finished_steps, streams_of, training_steps
from fl_sim.blocks.learner import Learner, local_settings
from fl_sim.blocks.plan import BlockPlan
from fl_sim.learning.loss import Loss
from fl_sim.learning.networks import home_leaves
from fl_sim.learning.returned import checked
from fl_sim.learning.rule import Draw, LocalRule, Sizes, Streams
from fl_sim.learning.settings import Local
from fl_sim.tree import Tree
from fl_sim.wire import payload


class Job(NamedTuple):
    """One client's part of a round, resolved from its message."""

    position: int
    """Index of the message in the exchange."""
    client: int
    sizes: Sizes
    streams: Streams
    draw: Draw
    state: Tree

    @property
    def steps(self) -> int:
        """S, the number of training steps."""
        return training_steps(self.streams)


@dataclass(frozen=True)
class Block:
    """Clients that train together, with the same rule and the same settings."""

    rule: LocalRule
    local: Local
    jobs: Sequence[Job]
    weighting: str
    """examples: replies are weighted by the client's training samples; else all weigh 1."""


def resolve(plan: BlockPlan, learner: Learner, model: Tree) -> tuple[Block, dict[int, str]]:
    """Resolve a block. A straggler stops after its fraction of its training steps.

    ``model`` is the global model, from which the rule makes the state of clients that have none yet.

    Returns
    -------
    tuple[Block, dict[int, str]]
        The block, and position -> traceback of the clients whose batches the rule could not draw.
    """
    settings, jobs, failed = plan.settings, [], {}
    server_round, seed = int(settings.get("server-round", 0)), int(settings.get("seed", 0))
    rule, local = learner.rule(plan.message_type, settings), local_settings(settings, server_round)
    turns = learner.partition.turns
    sizes = [Sizes(*learner.partition.sizes(order.client), turns) for order in plan.orders]
    draws = [Draw(seed, server_round, order.client) for order in plan.orders]
    together = streams_of(rule, sizes, local, draws)
    states = {order.client: plan.states[order.client] for order in plan.orders if order.client in plan.states}
    if len(states) < len(plan.orders):
        initial = _initial_state(rule, model, learner.loss)
        states = {order.client: states.get(order.client, initial) for order in plan.orders}
    for c, (order, size, draw) in enumerate(zip(plan.orders, sizes, draws, strict=True)):
        try:
            streams = together[c] if c in together else rule.streams(size, local.of(order.client), draw)
            if order.work != 1.0 and "train" in streams:
                streams["train"] = streams["train"][: finished_steps(len(streams["train"]), order.work)]
            jobs.append(Job(order.position, order.client, size, streams, draw, states[order.client]))
        except Exception:
            failed[order.position] = traceback.format_exc()
    return Block(rule, local, jobs, str(settings.get("weighting", "examples"))), failed


def _initial_state(rule: LocalRule, model: Tree, loss: Loss) -> Tree:
    """The state of clients that have none yet, with what stays at home; for most rules {}: no model is copied then."""
    home = home_leaves.first_home(home_leaves.names_of(rule, loss), loss)
    if type(rule).initial_state is LocalRule.initial_state:
        return home_leaves.with_home({}, home)
    own, _ = payload.split(tree.clone(model))
    own = home_leaves.whole(own, tree.clone(home), loss) if home else own
    return home_leaves.with_home(checked("the state of initial_state", rule.initial_state(own)), home)
