"""The batches of a block's clients: padded with masks for vmap, unpadded for the loop.

Legend: C clients of a block, S steps, B batch, n a client's samples.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from fl_sim import rng
from fl_sim.blocks.draws import step_keys
from fl_sim.blocks.resolve import Job
from fl_sim.kernels import leave_vmap
from fl_sim.learning.loss import Batch
from fl_sim.population.partition import Partition
from fl_sim.tree import Tree

MAX_GATHER_BYTES = 32 * 2**20
"""A block's samples are gathered for all steps at once where they take no more bytes than this."""


@dataclass(frozen=True)
class Padded:
    """One stream of batches of several clients, padded on both axes, with masks."""

    index: Tensor
    """(C, S, B) int64 into the shared samples."""
    mask: Tensor
    """(C, S, B) bool: which samples are real. A step without any is a padded step."""
    words: Tensor
    """(C, S, 2) int32: the key of each step's draws."""
    full: tuple[bool, ...]
    """(S,) whether every client's batch of this step is full, so that no mask is needed."""
    active: tuple[bool, ...]
    """(S,) whether every client takes this step."""
    samples: int
    """How many of the C * S * B places hold real samples; the others are padding."""


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
        ends = np.cumsum([len(indices) for indices in owned])
        positions = np.concatenate([batch for stream in streams for batch in stream])
        offsets = np.repeat(ends - [len(indices) for indices in owned], lengths.sum(1))
        index[mask] = np.concatenate(owned)[positions + offsets]
    full, active = (tuple(map(bool, np.all(x, axis=0))) for x in (lengths == width, lengths > 0))
    words = rng.words(step_keys([job.draw for job in jobs], name, steps))
    on_device = [torch.from_numpy(x).to(device) for x in (index, mask)]
    return Padded(on_device[0], on_device[1], words.to(device), full, active, int(lengths.sum()))


def padded_batches(data: Tree, index: Tensor, mask: Tensor, words: Tensor, shape: Padded) -> Iterator[Batch]:
    """The batches of ONE client of a padded stream; runs under ``vmap``.

    Samples are gathered for all steps at once where those of the block take at most MAX_GATHER_BYTES, else by step.

    Parameters
    ----------
    data : Tree
        The samples of all clients, leaves (N, ...).
    index, mask, words : Tensor
        The client's part of the stream: (S, B), (S, B), (S, 2).
    shape : Padded
        The stream of all clients, for its sizes and for which steps are full.
    """
    steps = len(shape.full)
    size = shape.index.numel() * sum(v[0].numel() * v.element_size() for v in data.values())
    if size <= MAX_GATHER_BYTES:
        all_steps = {k: v.unbind(0) for k, v in rows_of(data, index).items()}
        rows = [{k: x[s] for k, x in all_steps.items()} for s in range(steps)]
    keys, masks = words.unbind(0), mask.unbind(0)
    for s in range(steps):
        batch = rows[s] if size <= MAX_GATHER_BYTES else rows_of(data, index[s])
        yield Batch(batch, keys[s], None if shape.full[s] else masks[s], None if shape.active[s] else masks[s].any())


def rows_of(data: Tree, index: Tensor) -> Tree:
    """``v[index]`` of samples that all clients share; outside of ``vmap`` where possible: four times faster."""
    if not leave_vmap.is_possible():
        return {k: v[index] for k, v in data.items()}

    def select(index: Tensor) -> tuple[Tensor, ...]:
        return tuple(v.index_select(0, index.flatten()).reshape(*index.shape, *v.shape[1:]) for v in data.values())

    return dict(zip(data, leave_vmap.call_outside_vmap(select, index), strict=True))


def plain_batches(data: Tree, job: Job, name: str, partition: Partition, device: torch.device) -> Iterator[Batch]:
    """The batches of one client without padding; runs on the loop."""
    owned, stream = partition.client(job.client), job.streams[name]
    words = rng.words(rng.keys(job.draw(f"step-{name}"), len(stream))).to(device)
    for s, positions in enumerate(stream):
        rows = torch.from_numpy(owned[positions]).to(device)
        yield Batch({k: v[rows] for k, v in data.items()}, words[s])
