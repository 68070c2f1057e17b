"""A block: a fixed-size group of a round's clients; the unit of vectorisation, scheduling, pooling and retry.

A pure function of (global model, settings, round, client ids, seed, the clients' states). Blocks are cut
in the order (steps descending, position), so that clients of similar length train together. A plan of one travels;
which samples it uses is resolved where it runs, so that a round's memory grows with the blocks in flight.

Legend: C clients of a block, S steps, B batch, n a client's samples.
"""

import math
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from operator import attrgetter
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from fl_sim import physical, rng
from fl_sim.local import Draw, LocalRule, Sizes, Streams
from fl_sim.loss import Batch, Loss
from fl_sim.partition import Partition
from fl_sim.recorder import Recorder
from fl_sim.settings import Local
from fl_sim.streams import step_keys, streams_of
from fl_sim.tree import Tree

GATHER = 32 * 2**20
"""So many bytes of a block's samples are gathered at once for all of its steps."""
Settings = Mapping[str, Any]
"""What a message's ConfigRecord says: dotted keys to numbers and words."""


@dataclass(frozen=True)
class Learner:
    """All that training needs besides a message: the shared samples, who owns which, the loss, and how to find a rule."""

    loss: Loss
    data: Tree
    """All clients' samples, shared and read-only, on the loss's device."""
    partition: Partition
    rule: Callable[[str, Settings], LocalRule]
    """``(message type, settings) -> rule``."""
    recorder: Recorder = field(default_factory=Recorder, compare=False, repr=False)
    """Keeps a GPU's chunks that come again as graphs."""


class Job(NamedTuple):
    """One client's part of a round, resolved from its message."""

    position: int
    """Index of the message in the round."""
    client: int
    sizes: Sizes
    streams: Streams
    draw: Draw
    state: Tree

    @property
    def steps(self) -> int:
        """S: its training steps."""
        return _length(self.streams)


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


@dataclass(frozen=True)
class Block:
    """Clients that train together: same rule, same numbers."""

    rule: LocalRule
    local: Local
    jobs: Sequence[Job]
    weighting: str


def local_settings(settings: Settings, server_round: int) -> Local:
    """The ``local.*`` settings of a message, with the learning rate of this round by its schedule."""
    given = {k.removeprefix("local."): v for k, v in settings.items() if k.startswith("local.")}
    local = Local(**given)
    return replace(local, lr=local.lr_at(server_round, int(settings.get("rounds", 1))), lr_schedule="constant")


def plan_blocks(
    learner: Learner, message_type: str, orders: Iterable[tuple[int, int, Settings]], states: Mapping[int, Tree], block_size: int
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
        members.append(Order(position, client, _done(steps(client), work), work))
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


def _done(steps: int, work: float) -> int:
    """The steps that a straggler finishes: its share, rounded up."""
    return steps if work == 1.0 else math.ceil(work * steps - 1e-9)


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
                known[sizes] = _length(rule[0].streams(Sizes(*sizes), local_settings(settings, 1), draw))
            except Exception:
                known[sizes] = 0
        return known[sizes]

    return steps


def _length(streams: Streams) -> int:
    """Training steps; of a rule without a stream ``train``, the length of its longest one."""
    return len(streams["train"]) if "train" in streams else max((len(batches) for batches in streams.values()), default=0)


def resolve(plan: BlockPlan, learner: Learner) -> tuple[Block, dict[int, str]]:
    """The block itself: the draws decide which samples each client's steps use. And position -> traceback of clients that cannot.

    A straggler stops after its share of its training steps.
    """
    settings, jobs, failed = plan.settings, [], {}
    server_round, seed = int(settings.get("server-round", 0)), int(settings.get("seed", 0))
    rule, local = learner.rule(plan.message_type, settings), local_settings(settings, server_round)
    every = [Sizes(*learner.partition.sizes(order.client)) for order in plan.orders]
    draws = [Draw(seed, server_round, order.client) for order in plan.orders]
    together = streams_of(rule, every, local, draws)
    for c, (order, sizes, draw) in enumerate(zip(plan.orders, every, draws, strict=True)):
        try:
            streams = together[c] if c in together else rule.streams(sizes, local, draw)
            if order.work != 1.0 and "train" in streams:
                streams["train"] = streams["train"][: _done(len(streams["train"]), order.work)]
            jobs.append(Job(order.position, order.client, sizes, streams, draw, plan.states.get(order.client, {})))
        except Exception:
            failed[order.position] = traceback.format_exc()
    return Block(rule, local, jobs, str(settings.get("weighting", "examples"))), failed


@dataclass(frozen=True)
class Padded:
    """One stream of several clients, padded on both axes, with masks."""

    index: Tensor
    """(C, S, B) int64 into the shared samples."""
    mask: Tensor
    """(C, S, B) bool: real samples. A step without any is a padded step."""
    words: Tensor
    """(C, S, 2) int32: the key of each step's draws."""
    full: tuple[bool, ...]
    """(S,) whether every client's batch of this step is full: then no mask is needed."""
    active: tuple[bool, ...]
    """(S,) whether every client takes this step."""
    samples: int
    """How many of the C * S * B places hold real samples; the rest is padding."""


def pad(jobs: Sequence[Job], name: str, partition: Partition, device: torch.device) -> Padded:
    """Pad the stream ``name`` of a block's clients."""
    streams = [job.streams[name] for job in jobs]
    steps = max(map(len, streams), default=0)
    lengths = np.zeros((len(jobs), steps), np.int64)
    for c, stream in enumerate(streams):
        lengths[c, : len(stream)] = [len(batch) for batch in stream]
    width = int(lengths.max()) if steps else 1
    mask = np.arange(width) < lengths[:, :, None]
    index = np.zeros(mask.shape, np.int64)
    owned = partition.several([job.client for job in jobs])
    if steps:
        ends = np.cumsum([len(mine) for mine in owned])
        positions = np.concatenate([batch for stream in streams for batch in stream])
        offsets = np.repeat(ends - [len(mine) for mine in owned], lengths.sum(1))
        index[mask] = np.concatenate(owned)[positions + offsets]
    full, active = (tuple(map(bool, np.all(x, axis=0))) for x in (lengths == width, lengths > 0))
    words = rng.words(step_keys([job.draw for job in jobs], name, steps))
    to = [torch.from_numpy(x).to(device) for x in (index, mask)]
    return Padded(to[0], to[1], words.to(device), full, active, int(lengths.sum()))


def padded_batches(data: Tree, index: Tensor, mask: Tensor, words: Tensor, shape: Padded) -> Iterator[Batch]:
    """The steps of ONE client out of a padded stream (index, mask (S, B), words (S, 2)): what runs under ``vmap``.

    Samples are gathered for all steps at once where the block's take no more than GATHER bytes, else step by step.
    """
    steps = len(shape.full)
    size = shape.index.numel() * sum(v[0].numel() * v.element_size() for v in data.values())
    if size <= GATHER:
        whole = {k: v.unbind(0) for k, v in rows_of(data, index).items()}
        rows = [{k: x[s] for k, x in whole.items()} for s in range(steps)]
    every, masks = words.unbind(0), mask.unbind(0)
    for s in range(steps):
        batch = rows[s] if size <= GATHER else rows_of(data, index[s])
        yield Batch(batch, every[s], None if shape.full[s] else masks[s], None if shape.active[s] else masks[s].any())


def rows_of(data: Tree, index: Tensor) -> Tree:
    """``v[index]`` of samples that all clients share; ``vmap`` would go the long way, four times as slow."""
    if not physical.possible():
        return {k: v[index] for k, v in data.items()}

    def chosen(index: Tensor) -> tuple[Tensor, ...]:
        return tuple(v.index_select(0, index.flatten()).reshape(*index.shape, *v.shape[1:]) for v in data.values())

    return dict(zip(data, physical.outside(chosen, index), strict=True))


def plain_batches(data: Tree, job: Job, name: str, partition: Partition, device: torch.device) -> Iterator[Batch]:
    """The steps of one client without any padding: what the loop runs."""
    owned, stream = partition.client(job.client), job.streams[name]
    words = rng.words(rng.keys(job.draw(f"step-{name}"), len(stream))).to(device)
    for s, positions in enumerate(stream):
        rows = torch.from_numpy(owned[positions]).to(device)
        yield Batch({k: v[rows] for k, v in data.items()}, words[s])
