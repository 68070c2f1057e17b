"""Draws for a whole block equal those of a call for each client."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from fl_sim import rng
from fl_sim.blocks.draws import MIN_TOGETHER, step_keys, streams_of
from fl_sim.learning.rule import Draw, Sizes, Streams
from fl_sim.learning.settings import Local
from strategies.fedavg import FedAvg

SIZES = [5] * MIN_TOGETHER + [0] * MIN_TOGETHER + [1] * MIN_TOGETHER + [9] + [40] * (MIN_TOGETHER + 1)


def draws_of(seed: int) -> list[Draw]:
    return [Draw(seed, 3, 1_000_000 * c) for c in range(len(SIZES))]


@pytest.mark.parametrize("seed", [0, 7, 2**63 + 9])
@pytest.mark.parametrize(
    "local", [Local(), Local(epochs=3, batch_size=4), Local(steps=7, batch_size=2), Local(batch_size=0), Local(steps=1)]
)
@pytest.mark.parametrize("last_batch", ["keep", "drop", "join"])
def test_batches_are_those_of_each_client_alone(seed: int, local: Local, last_batch: Any) -> None:
    rule, sizes, draws = FedAvg(), [Sizes(n, 2) for n in SIZES], draws_of(seed)
    local = replace(local, last_batch=last_batch)  # of 5 samples in batches of 4 or 2 one is left over
    together = streams_of(rule, sizes, local, draws)
    # clients without samples, and the only client with 9, are drawn one by one
    assert [SIZES[c] for c in together] == [5] * MIN_TOGETHER + [1] * MIN_TOGETHER + [40] * (MIN_TOGETHER + 1)
    for c, streams in together.items():
        alone = rule.streams(sizes[c], local, draws[c])
        assert list(streams) == list(alone) == ["train"] and len(streams["train"]) == len(alone["train"])
        for a, b in zip(streams["train"], alone["train"], strict=True):
            assert np.array_equal(a, b) and a.dtype == b.dtype


def test_a_rule_that_overrides_streams_is_called_for_each_client() -> None:
    class Own(FedAvg):
        def streams(self, sizes: Sizes, local: Local, draw: Draw) -> Streams:
            return {"train": []}

    assert streams_of(Own(), [Sizes(5, 0)] * 8, Local(), draws_of(0)[:8]) == {}


@pytest.mark.parametrize("steps", [0, 1, 6])
def test_keys_of_steps_are_those_of_each_client_alone(steps: int) -> None:
    draws = [*draws_of(5), Draw(6, 3, 1), Draw(5, 4, 1)]  # another seed, another round
    keys = step_keys(draws, "train", steps)
    assert keys.shape == (len(draws), steps) and keys.dtype == np.uint64
    for own, draw in zip(keys, draws, strict=True):
        assert np.array_equal(own, rng.keys(draw("step-train"), steps))


def test_keys_below_many_bases_are_those_below_each() -> None:
    bases = rng.keys(3, 5)
    assert np.array_equal(
        rng.subkeys(bases[:, None], np.arange(4)), np.stack([rng.keys(int(base), 4) for base in bases])
    )
    assert rng.seed_keys(bases, "word").tolist() == [rng.key(int(base), "word") for base in bases]
