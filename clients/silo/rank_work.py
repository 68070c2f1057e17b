"""One client's round as the ranks of a silo get it: each holds the samples of its own shards, and no others.

Legend: P ranks, S shards, N samples of a batch.
"""

import pickle
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from fl_sim import rng
from fl_sim.blocks.learner import Learner
from fl_sim.blocks.resolve import Block, Job
from fl_sim.learning.batch_means import COUNTED
from fl_sim.learning.rule import Draw, LocalRule
from fl_sim.learning.settings import Local
from fl_sim.learning.sharded.shard_tree import bounds
from fl_sim.learning.sharded.sharded_loss import PartOfBatch
from fl_sim.tree import Tree


class StepPart(NamedTuple):
    """A rank's part of one step's batch."""

    rows: np.ndarray
    """Which of the rank's samples."""
    samples: int
    """N of the whole batch."""
    first: int
    """The row of the batch with which the part begins."""
    weights: tuple[int, ...]
    """(S,) as of ``PartOfBatch``."""


@dataclass(frozen=True)
class Work:
    """What one rank needs for one client's round."""

    rule: LocalRule
    local: Local
    draw: Draw
    model: Mapping[str, Any]
    state: Mapping[str, Any]
    data: Mapping[str, Any]
    """The rank's samples."""
    streams: Mapping[str, Sequence[StepPart]]
    edges: Sequence[int]
    """(P + 1,) the first shard of each rank, and S."""


def divided(block: Block, job: Job, model: Tree, learner: Learner, edges: Sequence[int]) -> list[Work]:
    """The work of each rank. The samples that a rank gets are those of its shards, each once."""
    owned, shards = learner.partition.client(job.client), edges[-1]
    counted = learner.data[COUNTED].cpu().numpy() if COUNTED in learner.data else None
    works, whole, state = [], arrays(model), arrays(job.state)
    for first, last in pairwise(edges):
        steps: dict[str, list[StepPart]] = {}
        for name, stream in job.streams.items():
            steps[name] = []
            for positions in stream:
                rows, ends = owned[positions], bounds(len(positions), shards)
                count = np.ones(len(rows), np.int64) if counted is None else counted[rows]
                weights = tuple(int(count[a:b].sum()) for a, b in pairwise(ends))
                steps[name].append(StepPart(rows[ends[first] : ends[last]], len(rows), ends[first], weights))
        every = [part.rows for stream in steps.values() for part in stream]
        needed = np.unique(np.concatenate(every)) if every else np.zeros(0, np.int64)
        streams = {
            name: [StepPart(np.searchsorted(needed, part.rows), *part[1:]) for part in stream]
            for name, stream in steps.items()
        }
        index = torch.from_numpy(needed).to(learner.loss.device)
        data = arrays({k: v[index] for k, v in learner.data.items()})
        works.append(Work(block.rule, block.local, job.draw, whole, state, data, streams, tuple(edges)))
    return works


def batches(
    stream: Sequence[StepPart], name: str, data: Tree, draw: Draw, device: torch.device
) -> Iterator[PartOfBatch]:
    """The parts of a stream's batches that a rank has, with the keys of the whole batches."""
    words = rng.words(rng.keys(draw(f"step-{name}"), len(stream))).to(device)
    for step, part in enumerate(stream):
        rows = torch.from_numpy(part.rows).to(device)
        own = {k: v[rows] for k, v in data.items()}
        yield PartOfBatch(own, words[step], samples=part.samples, first=part.first, weights=part.weights)


def check_held(work: Work, rank: int) -> None:
    """Assert that a rank holds the samples of its own shards, and no others."""
    parts = [part for stream in work.streams.values() for part in stream]
    for part in parts:
        ends = bounds(part.samples, work.edges[-1])
        assert len(part.rows) == ends[work.edges[rank + 1]] - ends[work.edges[rank]], "a part of another rank"
    needed = len(np.unique(np.concatenate([part.rows for part in parts]))) if parts else 0
    assert {len(v) for v in work.data.values()} <= {needed}, "samples that the rank's shards do not need"


def arrays(tree: Tree) -> dict[str, Any]:
    """A tree on its way to another process: NumPy arrays, which are sent without a copy, in the tensors' memory.

    Of a dtype that NumPy lacks, they stay tensors.
    """
    return {k: _array(x.detach().cpu()) for k, x in tree.items()}


def tensors(plain: Mapping[str, Any], device: torch.device) -> Tree:
    """The tree of ``arrays``, on a device."""
    return {k: torch.as_tensor(x).to(device) for k, x in plain.items()}


def _array(x: Tensor) -> Any:
    try:
        return x.numpy()
    except TypeError:
        return x


def packed(value: object) -> bytes:
    """An object as bytes; what plain pickle cannot name (a class of a notebook) goes by value, as on Ray."""
    try:
        return b"p" + pickle.dumps(value, protocol=5)
    except (pickle.PicklingError, AttributeError, TypeError):
        from fl_sim.executors.ray.serialize import pack  # imported here, because all else works without Ray

        return b"c" + pickle.dumps(pack(value), protocol=5)


def unpacked(data: bytes) -> Any:
    """The object of ``packed``."""
    value = pickle.loads(memoryview(data)[1:])
    if data[:1] == b"p":
        return value
    from fl_sim.executors.ray.serialize import unpack

    return unpack(value)
