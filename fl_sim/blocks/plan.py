"""Cuts a round's messages into blocks. A block is the unit of vectorisation, scheduling, pooling and retry.

The result of a block is a pure function of (global model, settings, round, client ids, seed, the clients' states).
Blocks are cut in the order (steps descending, position), so that clients of similar length train together. A worker
receives the plan of a block and resolves there which samples it uses, so that a round's memory grows with the blocks in
flight only.

Legend: C clients of a block, S steps, B batch, n a client's samples.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from operator import attrgetter
from typing import NamedTuple

from fl_sim.blocks.attack import Attack
from fl_sim.blocks.draws import finished_steps, training_steps
from fl_sim.blocks.learner import Learner, Settings, local_settings
from fl_sim.learning.rule import Draw, LocalRule, Sizes
from fl_sim.states.client_states import states_of
from fl_sim.tree import Tree

OF_A_MESSAGE = ("server-round", "system.work", "launch")
"""Settings on which a client's number of steps, before a straggler stops, does not depend."""
MOST_KEPT = 32
"""Most settings of which the work of clients is kept."""


class Launch(NamedTuple):
    """What differs between clients of a block that did not start together: see ``fl_sim.blocks.wave``."""

    start: int
    """Index of the model from which the client starts, in the leading axis of the block's models."""
    server_round: int
    """The server step after whose model it starts, and one: schedules of the learning rate depend on it."""
    draw: int
    """What keys its draws in place of the round: another number for each launch of a client."""


@dataclass(frozen=True, slots=True)
class Order:
    """One client's part of a round, read from its message: all that is kept of a client until its block runs."""

    position: int
    """Index of the message in the exchange."""
    client: int
    steps: int = 0
    """Training steps of the client, by which clients are sorted into blocks."""
    work: float = 1.0
    """Fraction of its training steps that a straggler finishes."""
    launch: Launch | None = None
    """None: all clients of the block start from one model, in one round."""


@dataclass(frozen=True)
class BlockPlan:
    """A block before it is resolved, as it is sent to a worker: a few numbers per client, and its clients' states."""

    number: int
    message_type: str
    settings: Settings
    """The settings that the messages of all its clients share."""
    orders: Sequence[Order]
    states: Mapping[int, Tree] = field(default_factory=dict)
    """Client id -> the client's state at the start of the exchange."""
    attack: Attack | None = None
    """What its clients do, all of which are malicious; None: all are honest."""

    @property
    def steps(self) -> int:
        """Training steps of all clients: the cost of the block."""
        return sum(order.steps for order in self.orders)


def plan_blocks(
    learner: Learner,
    message_type: str,
    orders: Iterable[tuple[int, int, Settings]],
    states: Mapping[int, Tree],
    block_size: int,
    first: int = 0,
) -> list[BlockPlan]:
    """Cut messages into blocks whose clients share every setting but ``system.work``.

    There are as few blocks as ``block_size`` allows, and their numbers of clients differ by at most one. A rule is
    called once for each size of client (and number in ``local.epochs_of``), because its number of steps may depend on
    settings and sizes only.

    Parameters
    ----------
    learner : Learner
        Finds the rule and the sizes of clients.
    message_type : str
        The type of Flower's messages, by which the rule is found.
    orders : Iterable[tuple[int, int, Settings]]
        (position of the message in the exchange, client id, settings). Messages with one settings object are grouped
        faster.
    states : Mapping[int, Tree]
        Client id -> state.
    block_size : int
        Clients of a block at most.
    first : int (default: 0)
        The number of the first block.
    """
    groups: dict[object, tuple[Settings, list[Order]]] = {}
    seen: dict[int, tuple[tuple[Settings, list[Order]], float, Callable[[int], tuple[int, int]]]] = {}
    counters: dict[object, Callable[[int], tuple[int, int]]] = {}
    kept = []  # the objects of ``seen`` must live as long as their ids are compared
    for position, client, settings in orders:
        known = seen.get(id(settings))
        if known is None:
            kept.append(settings)
            shared = {k: v for k, v in settings.items() if k != "system.work"}
            key = tuple(sorted(shared.items()))
            group = groups.setdefault(key, (shared, []))
            counter = counters.setdefault(key, work_counter(learner, message_type, shared))
            known = seen[id(settings)] = group, float(settings.get("system.work", 1.0)), counter
        (_, members), work, work_of = known
        members.append(Order(position, client, finished_steps(work_of(client)[0], work), work))
    plans: list[BlockPlan] = []
    for settings, members in groups.values():
        members.sort(key=attrgetter("position"))
        members.sort(key=attrgetter("steps"), reverse=True)
        for part in even_slices(len(members), block_size):
            chosen = members[part]
            own = states_of(states, [order.client for order in chosen])
            plans.append(BlockPlan(first + len(plans), message_type, settings, chosen, own))
    return plans


def alone(plan: BlockPlan) -> list[BlockPlan]:
    """The plans of a block's clients one by one."""
    return [replace(plan, orders=[order]) for order in plan.orders]


def even_slices(n: int, most: int) -> list[slice]:
    """The fewest slices of ``range(n)`` with at most ``most`` elements each; their lengths differ by at most one."""
    count = -(-n // most)
    return [slice(n * i // count, n * (i + 1) // count) for i in range(count)]


def work_counter(learner: Learner, message_type: str, settings: Settings) -> Callable[[int], tuple[int, int]]:
    """A function client -> (steps, samples in all of its batches); 0 where the rule raises.

    That it raises is reported when the block runs. Both depend on the settings other than the round, and on the sizes
    of the client; what has been counted is kept in ``learner.counted_work`` for later rounds.
    """
    same = (message_type, *sorted((k, v) for k, v in settings.items() if k not in OF_A_MESSAGE))
    if same not in learner.counted_work and len(learner.counted_work) >= MOST_KEPT:
        learner.counted_work.clear()
    known = learner.counted_work.setdefault(same, {})
    rule: list[LocalRule] = []
    turns = str(settings.get("local.epochs_of", "")).count(",") + 1

    def work(client: int) -> tuple[int, int]:
        sizes = learner.partition.sizes(client)
        kind = (*sizes, client % turns)
        if kind not in known:
            try:
                rule[:] = rule or [learner.rule(message_type, settings)]
                local, draw = local_settings(settings, 1).of(client), Draw(int(settings.get("seed", 0)), 0, 0)
                streams = rule[0].streams(Sizes(*sizes, learner.partition.turns), local, draw)
                samples = sum(len(batch) for batches in streams.values() for batch in batches)
                known[kind] = training_steps(streams), samples
            except Exception:  # see above
                known[kind] = 0, 0
        return known[kind]

    return work
