"""Model and payload as one tree, and pooled each by its own pool."""

import pytest
import torch

from fl_sim import tree
from fl_sim.tree import Tree
from fl_sim.wire import payload
from fl_sim.wire.payload import PayloadPool
from strategies.pools.max import Max
from strategies.pools.mean import Mean


def reply(w: float, largest: float, count: float) -> Tree:
    numbers = {"most": {"w": torch.tensor([largest, -largest])}, "counts": {"n": torch.tensor(count)}}
    return payload.join({"w": torch.tensor([w, 2 * w])}, numbers)


def test_model_and_payload_are_told_apart_again() -> None:
    model, beside = payload.split(reply(1.0, 2.0, 3.0))
    assert list(model) == ["w"] and {k: list(v) for k, v in beside.items()} == {"most": ["w"], "counts": ["n"]}
    records = payload.encode(reply(1.0, 2.0, 3.0))
    assert list(records) == ["arrays", "payload.most", "payload.counts"]
    assert tree.digest(payload.decode(records)) == tree.digest(reply(1.0, 2.0, 3.0))
    with pytest.raises(ValueError, match="the payload has the name 'a b'"):
        payload.join({}, {"a b": {}})


def test_each_tree_is_pooled_by_its_own_pool_in_any_grouping() -> None:
    # Weights 1 and 3: the model's mean (1 + 3 * 5) / 4 = 4, the largest of +-2 and +-7, the mean of the counts
    # (4 + 3 * 8) / 4 = 7.
    pool, like = PayloadPool(Mean(), {"most": Max()}, Mean()), reply(0.0, 0.0, 0.0)
    replies, weights = [reply(1.0, 2.0, 4.0), reply(5.0, 7.0, 8.0)], torch.tensor([1.0, 3.0], dtype=torch.float64)

    def part(*chosen: int) -> Tree:
        return pool.add(pool.start(like), tree.stack([replies[c] for c in chosen]), weights[list(chosen)])

    for partial in (part(0, 1), pool.merge(part(0), part(1)), pool.merge(pool.start(like), part(1, 0))):
        model, beside = payload.split(pool.finish(partial, like))
        assert model["w"].tolist() == [4.0, 8.0] and float(beside["counts"]["n"]) == 7.0
        assert beside["most"]["w"].tolist() == [7.0, -2.0]
