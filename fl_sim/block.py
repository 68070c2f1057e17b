"""A block: a fixed-size group of a round's clients; the unit of vectorisation, scheduling, pooling and retry.

A pure function of (global model, settings, round, client ids, seed, the clients' states). Blocks are cut
in the order (steps descending, position), so that clients of similar length train together.

Legend: C clients of a block, S steps, B batch, n a client's samples.
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
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
        """S: its training steps; of a rule without a stream ``train``, the length of its longest one."""
        trained = self.streams.get("train")
        return len(trained) if trained is not None else max((len(batches) for batches in self.streams.values()), default=0)


@dataclass(frozen=True)
class Block:
    """Clients that train together: same rule, same numbers."""

    number: int
    rule: LocalRule
    local: Local
    jobs: Sequence[Job]
    weighting: str


def local_settings(settings: Settings, server_round: int) -> Local:
    """The ``local.*`` settings of a message, with the learning rate of this round by its schedule."""
    given = {k.removeprefix("local."): v for k, v in settings.items() if k.startswith("local.")}
    local = Local(**given)
    return replace(local, lr=local.lr_at(server_round, int(settings.get("rounds", 1))), lr_schedule="constant")


def make_jobs(
    learner: Learner, message_type: str, orders: Sequence[tuple[int, int, Settings]], states: Mapping[int, Tree]
) -> list[tuple[Job, Settings]]:
    """Resolve messages (position, client, settings) into jobs: the draws decide which samples each step uses.

    A straggler (``system.work`` < 1) stops after that share of its training steps.
    """
    jobs = []
    for position, client, settings in orders:
        server_round = int(settings.get("server-round", 0))
        draw = Draw(int(settings.get("seed", 0)), server_round, client)
        sizes = Sizes(*learner.partition.sizes(client))
        streams = learner.rule(message_type, settings).streams(sizes, local_settings(settings, server_round), draw)
        if "system.work" in settings and "train" in streams:
            done = math.ceil(settings["system.work"] * len(streams["train"]) - 1e-9)
            streams["train"] = streams["train"][:done]
        jobs.append((Job(position, client, sizes, streams, draw, states.get(client, {})), settings))
    return jobs


def cut(learner: Learner, message_type: str, jobs: Sequence[tuple[Job, Settings]], block_size: int) -> list[Block]:
    """Cut a round's jobs into blocks of at most ``block_size`` clients that share every setting but their amount of work."""
    groups: dict[Any, list[tuple[Job, Settings]]] = {}
    for job, settings in jobs:
        shared = tuple(sorted((k, v) for k, v in settings.items() if k != "system.work"))
        groups.setdefault(shared, []).append((job, settings))
    blocks: list[Block] = []
    for members in groups.values():
        settings = members[0][1]
        ordered = sorted((job for job, _ in members), key=lambda job: (-job.steps, job.position))
        rule, local = learner.rule(message_type, settings), local_settings(settings, int(settings.get("server-round", 0)))
        for start in range(0, len(ordered), block_size):
            chosen = ordered[start : start + block_size]
            blocks.append(Block(len(blocks), rule, local, chosen, str(settings.get("weighting", "examples"))))
    return blocks


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
