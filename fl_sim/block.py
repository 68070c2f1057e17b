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
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fl_sim import rng
from fl_sim.local import Draw, LocalRule, Sizes, Streams
from fl_sim.loss import Batch, Loss
from fl_sim.partition import Partition
from fl_sim.settings import Local
from fl_sim.tree import Tree

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


@dataclass(frozen=True)
class Job:
    """One client's part of a round, resolved from its message."""

    position: int
    """Index of the message in the round."""
    client: int
    sizes: Sizes
    streams: Streams
    draw: Draw
    state: Tree = field(default_factory=dict)

    @property
    def steps(self) -> int:
        """S: its training steps."""
        return _length(self.streams)


@dataclass(frozen=True)
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
    """Cut messages (position, client, settings) into blocks of at most ``block_size`` clients that share every setting but their work.

    How many steps a client takes is asked once for each size that occurs: it may depend on settings and sizes only.
    Messages that share their settings object are compared by it.
    """
    groups: dict[Any, tuple[Settings, list[Order]]] = {}
    seen: dict[int, tuple[tuple[Settings, list[Order]], float, Callable[[int], int]]] = {}
    counters: dict[Any, Callable[[int], int]] = {}
    kept = []  # objects in ``seen`` must live as long as their ids are compared
    for position, client, settings in orders:
        if id(settings) not in seen:
            kept.append(settings)
            shared = {k: v for k, v in settings.items() if k != "system.work"}
            key = tuple(sorted(shared.items()))
            group = groups.setdefault(key, (shared, []))
            counter = counters.setdefault(key, _step_counter(learner, message_type, shared))
            seen[id(settings)] = group, float(settings.get("system.work", 1.0)), counter
        (_, members), work, steps = seen[id(settings)]
        members.append(Order(position, client, _done(steps(client), work), work))
    plans: list[BlockPlan] = []
    for settings, members in groups.values():
        members.sort(key=lambda order: (-order.steps, order.position))
        for start in range(0, len(members), block_size):
            chosen = members[start : start + block_size]
            own = {order.client: states[order.client] for order in chosen if order.client in states}
            plans.append(BlockPlan(len(plans), message_type, settings, chosen, own))
    return plans


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
    for order in plan.orders:
        try:
            sizes, draw = Sizes(*learner.partition.sizes(order.client)), Draw(seed, server_round, order.client)
            streams = rule.streams(sizes, local, draw)
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


def step_words(job: Job, name: str, steps: int) -> Tensor:
    """(S, 2) int32: the keys of a stream's steps."""
    return rng.words(rng.keys(job.draw(f"step-{name}"), steps))


def pad(jobs: Sequence[Job], name: str, partition: Partition, device: torch.device) -> Padded:
    """Pad the stream ``name`` of a block's clients."""
    streams = [job.streams[name] for job in jobs]
    steps = max((len(s) for s in streams), default=0)
    width = max((len(batch) for s in streams for batch in s), default=1)
    index = np.zeros((len(jobs), steps, width), np.int64)
    mask = np.zeros((len(jobs), steps, width), bool)
    for c, (job, stream) in enumerate(zip(jobs, streams, strict=True)):
        owned = partition.client(job.client)
        for s, positions in enumerate(stream):
            index[c, s, : len(positions)] = owned[positions]
            mask[c, s, : len(positions)] = True
    full = tuple(map(bool, np.atleast_1d(mask.all(axis=(0, 2)))))
    active = tuple(map(bool, np.atleast_1d(mask.any(axis=2).all(axis=0))))
    words = torch.stack([step_words(job, name, steps) for job in jobs])
    return Padded(torch.from_numpy(index).to(device), torch.from_numpy(mask).to(device), words.to(device), full, active)


def padded_batches(data: Tree, index: Tensor, mask: Tensor, words: Tensor, shape: Padded) -> Iterator[Batch]:
    """The steps of ONE client out of a padded stream (index, mask (S, B), words (S, 2)): what runs under ``vmap``."""
    for s in range(len(shape.full)):
        rows = {k: v[index[s]] for k, v in data.items()}
        yield Batch(rows, words[s], None if shape.full[s] else mask[s], None if shape.active[s] else mask[s].any())


def plain_batches(data: Tree, job: Job, name: str, partition: Partition, device: torch.device) -> Iterator[Batch]:
    """The steps of one client without any padding: what the loop runs."""
    owned, stream = partition.client(job.client), job.streams[name]
    words = step_words(job, name, len(stream)).to(device)
    for s, positions in enumerate(stream):
        rows = torch.from_numpy(owned[positions]).to(device)
        yield Batch({k: v[rows] for k, v in data.items()}, words[s])
