"""The draws of a block's clients, made together: each is what the client's own call would give. No paper.

Legend: C clients of a block, S steps, n a client's samples.
"""

import math
from collections.abc import Sequence

import numpy as np

from fl_sim import rng
from fl_sim.learning.rule import Draw, LocalRule, Sizes, Streams
from fl_sim.learning.settings import Local

FEW = 4
"""Clients of one size from which it pays to draw together."""


def step_keys(draws: Sequence[Draw], name: str, steps: int) -> np.ndarray:
    """(C, S) uint64: the keys of a stream's steps: ``rng.keys(draw(f"step-{name}"), S)`` of each client."""
    return rng.subkeys(_keys(draws, f"step-{name}")[:, None], np.arange(steps))


def streams_of(rule: LocalRule, sizes: Sequence[Sizes], local: Local, draws: Sequence[Draw]) -> dict[int, Streams]:
    """Index in ``sizes`` -> ``rule.streams(...)`` of that client, for those that can be drawn together: rules that keep the default."""
    if type(rule).streams is not LocalRule.streams:
        return {}
    groups: dict[int, list[int]] = {}
    for c, size in enumerate(sizes):
        groups.setdefault(size.train, []).append(c)
    made: dict[int, Streams] = {}
    for n, members in groups.items():
        if n and len(members) >= FEW:
            batches = _passes(n, local, _keys([draws[c] for c in members], "order"))
            made |= {c: {"train": own} for c, own in zip(members, batches, strict=True)}
    return made


def _keys(draws: Sequence[Draw], purpose: str) -> np.ndarray:
    """(C,) uint64: ``draw(purpose)`` of each."""
    heads = {draw[:2]: rng.key(draw.seed, purpose, draw.server_round) for draw in draws}
    bases = np.array([heads[draw[:2]] for draw in draws], np.uint64)
    return rng.subkeys(bases, np.array([draw.client for draw in draws]))


def _passes(n: int, local: Local, keys: np.ndarray) -> list[list[np.ndarray]]:
    """``fl_sim.learning.rule.passes(np.arange(n), local, key)`` for each of keys (C,)."""
    size = min(local.batch_size or n, n)
    per_pass = -(-n // size)
    steps = local.steps or local.epochs * per_pass
    heads = rng.seed_keys(keys, "pass")
    batches: list[list[np.ndarray]] = [[] for _ in keys]
    for number in range(-(-steps // per_pass)):
        words = rng.subkeys(rng.subkeys(heads, np.array([number]))[:, None], np.arange(n))
        for own, order in zip(batches, words.argsort(axis=1, kind="stable"), strict=True):
            own += [order[i : i + size] for i in range(0, n, size)]
    return [own[:steps] for own in batches]


def finished_steps(steps: int, work: float) -> int:
    """The steps that a straggler finishes: its share, rounded up."""
    return steps if work == 1.0 else math.ceil(work * steps - 1e-9)


def training_steps(streams: Streams) -> int:
    """Training steps; of a rule without a stream ``train``, the length of its longest one."""
    return (
        len(streams["train"]) if "train" in streams else max((len(batches) for batches in streams.values()), default=0)
    )
