"""A block: a fixed-size group of a round's clients; the unit of vectorisation, scheduling, pooling and retry.

A pure function of (global model, settings, round, client ids, seed, the clients' states). Blocks are cut
in the order (steps descending, position), so that clients of similar length train together. A plan of one travels;
which samples it uses is resolved where it runs, so that a round's memory grows with the blocks in flight.

Legend: C clients of a block, S steps, B batch, n a client's samples.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from operator import attrgetter
from typing import Any

from fl_sim.blocks.draws import finished_steps, training_steps
from fl_sim.blocks.learner import Learner, Settings, local_settings
from fl_sim.learning.rule import Draw, LocalRule, Sizes
from fl_sim.tree import Tree


@dataclass(frozen=True, slots=True)
class Order:
    """One client's part of a round, as its message says it: all that the machine keeps of a client that waits."""

    position: int
    """Index of the message in the exchange."""
    client: int
    steps: int = 0
    """Steps that it will take: what blocks are sorted by."""
    work: float = 1.0
    """Share of its training steps that a straggler finishes."""


@dataclass(frozen=True)
class BlockPlan:
    """A block before it is resolved: what travels to a worker. A few numbers a client, and the states of its own clients."""

    number: int
    message_type: str
    settings: Settings
    """What all its clients' messages say."""
    orders: Sequence[Order]
    states: Mapping[int, Tree] = field(default_factory=dict)
    """Client id -> its state at the start of the exchange."""

    @property
    def steps(self) -> int:
        """Steps of all its clients: its cost."""
        return sum(order.steps for order in self.orders)


def plan_blocks(
    learner: Learner,
    message_type: str,
    orders: Iterable[tuple[int, int, Settings]],
    states: Mapping[int, Tree],
    block_size: int,
) -> list[BlockPlan]:
    """Cut messages (position, client, settings) into blocks that share every setting but their work.

    As few blocks as ``block_size`` clients at most allow, of equal numbers of clients but for one.
    How many steps a client takes is asked once for each size that occurs: it may depend on settings and sizes only.
    Messages that share their settings object are compared by it.
    """
    groups: dict[Any, tuple[Settings, list[Order]]] = {}
    seen: dict[int, tuple[tuple[Settings, list[Order]], float, Callable[[int], int]]] = {}
    counters: dict[Any, Callable[[int], int]] = {}
    kept = []  # objects in ``seen`` must live as long as their ids are compared
    for position, client, settings in orders:
        known = seen.get(id(settings))
        if known is None:
            kept.append(settings)
            shared = {k: v for k, v in settings.items() if k != "system.work"}
            key = tuple(sorted(shared.items()))
            group = groups.setdefault(key, (shared, []))
            counter = counters.setdefault(key, _step_counter(learner, message_type, shared))
            known = seen[id(settings)] = group, float(settings.get("system.work", 1.0)), counter
        (_, members), work, steps = known
        members.append(Order(position, client, finished_steps(steps(client), work), work))
    plans: list[BlockPlan] = []
    for settings, members in groups.values():
        members.sort(key=attrgetter("position"))
        members.sort(key=attrgetter("steps"), reverse=True)
        for part in even_slices(len(members), block_size):
            chosen = members[part]
            own = {order.client: states[order.client] for order in chosen if order.client in states}
            plans.append(BlockPlan(len(plans), message_type, settings, chosen, own))
    return plans


def even_slices(n: int, most: int) -> list[slice]:
    """``range(n)`` cut into as few slices of at most ``most`` as there can be, whose lengths differ by at most one."""
    count = -(-n // most)
    return [slice(n * i // count, n * (i + 1) // count) for i in range(count)]


def _step_counter(learner: Learner, message_type: str, settings: Settings) -> Callable[[int], int]:
    """client -> steps; 0 where the rule cannot tell, whose failure then shows when the block runs."""
    known: dict[tuple[int, int], int] = {}
    rule: list[LocalRule] = []

    def steps(client: int) -> int:
        sizes = learner.partition.sizes(client)
        if sizes not in known:
            try:
                rule[:] = rule or [learner.rule(message_type, settings)]
                draw = Draw(int(settings.get("seed", 0)), 0, 0)
                known[sizes] = training_steps(rule[0].streams(Sizes(*sizes), local_settings(settings, 1), draw))
            except Exception:
                known[sizes] = 0
        return known[sizes]

    return steps
