"""Random draws for all clients of a block in one call; each equals what a call for that client alone gives.

Legend: C clients of a block, S steps, n a client's samples.
"""

import math
from collections.abc import Sequence

import numpy as np

from fl_sim import rng
from fl_sim.learning.rule import Draw, LocalRule, Sizes, Streams, slices_of_pass
from fl_sim.learning.settings import Local

MIN_TOGETHER = 4
"""Number of clients of one size from which drawing for all of them in one call is faster."""


def step_keys(draws: Sequence[Draw], name: str, steps: int) -> np.ndarray:
    """(C, S) uint64: keys of the steps of stream ``name``, for each client ``rng.keys(draw(f"step-{name}"), S)``."""
    return rng.subkeys(_keys(draws, f"step-{name}")[:, None], np.arange(steps))


def streams_of(rule: LocalRule, sizes: Sequence[Sizes], local: Local, draws: Sequence[Draw]) -> dict[int, Streams]:
    """Index in ``sizes`` -> ``rule.streams(...)`` of that client.

    Only for clients that can be drawn together: at least MIN_TOGETHER of one size, and a rule that does not override
    ``streams``, where all clients make as many passes.
    """
    if type(rule).streams is not LocalRule.streams or local.epochs_of:
        return {}
    groups: dict[int, list[int]] = {}
    for c, size in enumerate(sizes):
        groups.setdefault(size.train, []).append(c)
    streams: dict[int, Streams] = {}
    for n, members in groups.items():
        if n and len(members) >= MIN_TOGETHER:
            batches = _passes(n, local, _keys([draws[c] for c in members], "order"))
            streams |= {c: {"train": own} for c, own in zip(members, batches, strict=True)}
    return streams


def _keys(draws: Sequence[Draw], purpose: str) -> np.ndarray:
    """(C,) uint64: ``draw(purpose)`` of each client."""
    heads = {draw[:2]: rng.key(draw.seed, purpose, draw.server_round) for draw in draws}
    bases = np.array([heads[draw[:2]] for draw in draws], np.uint64)
    return rng.subkeys(bases, np.array([draw.client for draw in draws]))


def _passes(n: int, local: Local, keys: np.ndarray) -> list[list[np.ndarray]]:
    """For each of the keys (C,) the batches of ``fl_sim.learning.rule.passes(np.arange(n), local, key)``."""
    slices = slices_of_pass(n, local)
    steps = local.steps or local.epochs * len(slices)
    heads = rng.seed_keys(keys, "pass")
    batches: list[list[np.ndarray]] = [[] for _ in keys]
    for number in range(-(-steps // len(slices))):
        words = rng.subkeys(rng.subkeys(heads, np.array([number]))[:, None], np.arange(n))
        for own, order in zip(batches, words.argsort(axis=1, kind="stable"), strict=True):
            own += [order[part] for part in slices]
    return [own[:steps] for own in batches]


def finished_steps(steps: int, work: float) -> int:
    """Steps that a straggler finishes: the fraction ``work`` of its steps, rounded up."""
    return steps if work == 1.0 else math.ceil(work * steps - 1e-9)


def training_steps(streams: Streams) -> int:
    """Number of training steps: batches of the stream ``train``, or of the longest stream where that is missing."""
    return (
        len(streams["train"]) if "train" in streams else max((len(batches) for batches in streams.values()), default=0)
    )
