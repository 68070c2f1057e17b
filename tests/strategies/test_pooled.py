"""Strategy ``pooled``: every pool by name, of weights and of deltas, end to end."""

from typing import Any

import pytest
import torch

from fl_sim import tree
from fl_sim.wire.pool import WEIGHT
from strategies.fedavg import FedAvg
from strategies.maxpool import MaxPool
from strategies.pooled import AnyPool
from strategies.pools.max import Max
from tests.strategies.test_pools_properties import COMMUTE, NAMES

LOCAL = {"local.batch_size": 5}


class Third(Max):
    """A user's pool with a number of its own."""

    def __init__(self, share: float = 0.1) -> None:
        self.share = share


def model_of(federation: Any, strategy: Any, rounds: int = 2, **grid: Any) -> Any:
    return federation.train(strategy, LOCAL, rounds=rounds, **grid).model


@pytest.mark.parametrize("name", NAMES)
def test_weights_and_deltas_are_one_algorithm_where_the_pool_commutes_with_translation(smooth: Any, name: str) -> None:
    one, other = (model_of(smooth, AnyPool(reduction=name, of=of, T=0.3)) for of in ("weights", "deltas"))
    off = max(float((one[k] - other[k]).abs().max()) for k in one)
    assert (off < 1e-12) == (name in COMMUTE), off


def test_mean_is_fedavg_and_max_and_absmax_are_maxpool(smooth: Any) -> None:
    pairs = [
        (AnyPool(), FedAvg()),
        (AnyPool(reduction="max"), MaxPool()),
        (AnyPool(reduction="absmax", of="deltas"), MaxPool(of="deltas")),
    ]
    for one, other in pairs:
        assert tree.digest(model_of(smooth, one)) == tree.digest(model_of(smooth, other))


@pytest.mark.parametrize("name", ["softmax", "geometric_median", "lp"])
def test_blocks_and_engines_give_the_same(smooth: Any, name: str) -> None:
    """Softmax in blocks needs the global model of each round where the blocks run."""
    whole = model_of(smooth, AnyPool(reduction=name, T=0.1))
    for grid in ({"block_size": 2}, {"block_size": 1, "engine": "vmap"}):
        for k, x in model_of(smooth, AnyPool(reduction=name, T=0.1), **grid).items():
            torch.testing.assert_close(x, whole[k], rtol=0, atol=1e-9)


def test_softmax_takes_its_unit_from_the_model_of_each_round(smooth: Any) -> None:
    strategy = AnyPool(reduction="softmax")
    strategy.model = {"w": torch.tensor([1.0, 3.0])}
    assert strategy.pool.units == {"w": 1.0}  # type: ignore[attr-defined]
    smooth.train(strategy, LOCAL, rounds=1)
    before = smooth.train(AnyPool(), LOCAL, rounds=1).answers
    assert before and strategy.pool.units.keys() == strategy.model.keys()  # type: ignore[attr-defined]


def test_what_a_pool_does_not_use_is_refused_by_name() -> None:
    assert set(AnyPool(reduction="lp").idle_parameters) == {"T", "share"}
    assert set(AnyPool(reduction="median").idle_parameters) == {"p", "T", "share"}
    assert set(AnyPool(reduction="median").wrong_values["weighting"]) == {"examples", "uniform"}
    assert AnyPool(reduction="geometric_median").wrong_values == {}
    with pytest.raises(ValueError, match=r"strategy\.reduction = 'mediam': unknown \(did you mean 'median'\?\)"):
        _ = AnyPool(reduction="mediam").wrong_values
    with pytest.raises(ValueError, match="no class derived from fl_sim.Pool"):
        _ = AnyPool(reduction="tests.strategies.test_pooled:model_of").pool


def test_a_user_s_own_pool_by_path() -> None:
    own = AnyPool(reduction="tests.strategies.test_pooled:Third", share=0.3)
    assert isinstance(own.pool, Third) and own.pool.share == 0.3
    assert set(own.idle_parameters) == {"p", "T"}


def test_a_partial_of_a_pool_of_all_replies_keeps_each_with_its_weight() -> None:
    pool = AnyPool(reduction="median").pool
    replies = {"w": torch.tensor([[1.0], [2.0]])}
    partial = pool.add(pool.start({}), replies, torch.tensor([3.0, 4.0], dtype=torch.float64))
    assert partial["w"].shape == (2, 1) and partial[WEIGHT].tolist() == [3.0, 4.0]
