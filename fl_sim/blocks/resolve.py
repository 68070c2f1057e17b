"""Resolves the plan of a block: random draws decide which samples each step of each client uses.

Legend: S steps.
"""

import traceback
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import NamedTuple

from torch import Tensor

from fl_sim import tree
from fl_sim.blocks.draws import finished_steps, streams_of, training_steps
from fl_sim.blocks.learner import Learner, Settings, local_settings
from fl_sim.blocks.plan import BlockPlan, Launch
from fl_sim.blocks.wave import model_of
from fl_sim.learning.loss import Loss
from fl_sim.learning.networks import home_leaves
from fl_sim.learning.returned import checked
from fl_sim.learning.rule import Draw, LocalRule, Sizes, Streams
from fl_sim.learning.settings import Local
from fl_sim.tree import Tree
from fl_sim.wire import payload
from fl_sim.wire.codec import split_state


class Job(NamedTuple):
    """One client's part of a round, resolved from its message."""

    position: int
    """Index of the message in the exchange."""
    client: int
    sizes: Sizes
    streams: Streams
    draw: Draw
    state: Tree
    launch: Launch | None = None
    """Which of the block's models it starts from, and when; None: all start from one."""
    kept: Mapping[str, Tensor] = MappingProxyType({})
    """What a codec keeps in the client's state (``fl_sim.wire.codec``); it is not in ``state``."""

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
    rates: Mapping[int, float] = field(default_factory=dict)
    """Server round of a launch -> learning rate, where clients did not start together and the rates differ."""

    def local_of(self, job: Job) -> Local:
        """The settings of local training of one client."""
        return replace(self.local, lr=self.rates[job.launch.server_round]) if self.rates and job.launch else self.local

    def of(self, job: Job) -> "Block":
        """The block as one client sees it."""
        return replace(self, local=self.local_of(job), rates={}) if self.rates else self


def resolve(plan: BlockPlan, learner: Learner, model: Tree) -> tuple[Block, dict[int, str]]:
    """Resolve a block. A straggler stops after its fraction of its training steps.

    ``model`` is the global model, from which the rule makes the state of clients that have none yet; of clients that
    start from different models, all of these, stacked (V, ...).

    Returns
    -------
    tuple[Block, dict[int, str]]
        The block, and position -> traceback of the clients whose batches the rule could not draw.
    """
    settings, jobs, failed = plan.settings, [], {}
    first = plan.orders[0].launch
    server_round = first.server_round if first else int(settings.get("server-round", 0))
    seed = int(settings.get("seed", 0))
    rule, local = learner.rule(plan.message_type, settings), local_settings(settings, server_round)
    turns = learner.partition.turns
    sizes = [Sizes(*learner.partition.sizes(order.client), turns) for order in plan.orders]
    draws = [Draw(seed, order.launch.draw if order.launch else server_round, order.client) for order in plan.orders]
    together = streams_of(rule, sizes, local, draws)
    states: dict[int, Tree] = {}
    kept: dict[int, Tree] = {}
    for client in (order.client for order in plan.orders if order.client in plan.states):
        own, kept[client] = split_state(plan.states[client])
        if own:
            states[client] = own
    initial: dict[Launch | None, Tree] = {}
    for order in (order for order in plan.orders if order.client not in states):
        if order.launch not in initial:
            initial[order.launch] = _initial_state(rule, model_of(model, order.launch), learner.loss)
        states[order.client] = initial[order.launch]
    for c, (order, size, draw) in enumerate(zip(plan.orders, sizes, draws, strict=True)):
        try:
            streams = together[c] if c in together else rule.streams(size, local.of(order.client), draw)
            if order.work != 1.0 and "train" in streams:
                streams["train"] = streams["train"][: finished_steps(len(streams["train"]), order.work)]
            facts = order.position, order.client, size, streams, draw, states[order.client], order.launch
            jobs.append(Job(*facts, kept.get(order.client, {})))
        except Exception:
            failed[order.position] = traceback.format_exc()
    rates = _rates(settings, [job.launch.server_round for job in jobs if job.launch])
    return Block(rule, local, jobs, str(settings.get("weighting", "examples")), rates), failed


def _rates(settings: Settings, rounds: Iterable[int]) -> dict[int, float]:
    """Server round -> learning rate; {} where all are the same."""
    found = {number: local_settings(settings, number).lr for number in set(rounds)}
    return found if len({*found.values()}) > 1 else {}


def _initial_state(rule: LocalRule, model: Tree, loss: Loss) -> Tree:
    """The state of clients that have none yet, with what stays at home; for most rules {}: no model is copied then."""
    home = home_leaves.first_home(home_leaves.names_of(rule, loss), loss)
    if type(rule).initial_state is LocalRule.initial_state:
        return home_leaves.with_home({}, home)
    own, _ = payload.split(tree.clone(model))
    own = home_leaves.whole(own, tree.clone(home), loss) if home else own
    return home_leaves.with_home(checked("the state of initial_state", rule.initial_state(own)), home)
