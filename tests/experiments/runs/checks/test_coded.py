"""Which codec goes with which strategy and pool, as a table; what does not go is refused by name before any work."""

from typing import Any, ClassVar

import pytest
import torch
from torch import nn

from experiments.config.choices import offered
from experiments.config.recipe_files import make
from experiments.runs.checks.coded import check_coding
from experiments.runs.setup import make_strategy
from fl_sim.errors import ConfigError
from fl_sim.learning.loss import Loss
from fl_sim.learning.networks import home_leaves
from fl_sim.wire.codec import Coding
from strategies.base.strategy import Strategy
from strategies.pools.max import Max
from tests.experiments.config.tiny_world import NAMES, tiny

TINY: dict[str, Any] = {"task": f"{NAMES}:tiny", "model": f"{NAMES}:linear", "rounds": 2, "partition": "natural"}
LOSS = Loss(nn.Sequential(nn.Linear(3, 2), nn.Linear(2, 2)), tiny())
EVERY, WHOLE = {"int8", "fp16", "topk", "grouped", "powersgd", "dgc"}, {"int8", "fp16"}
SPARSE_TOO = EVERY - {"dgc"}

TABLE: dict[str, tuple[dict[str, Any], set[str]]] = {
    # a mean of updates: a coordinate that was not sent counts as zero, which feedback corrects later
    **{
        name: ({"strategy": name}, SPARSE_TOO)
        for name in ("scaffold", "fednova", "feddyn", "moon", "ditto", "fedrep", "perfedavg", "reptile", "pfedme")
    },
    "fedavg": ({"strategy": "fedavg", "local.steps": 1}, EVERY),
    "fedprox": ({"strategy": "fedprox", "local.steps": 1}, EVERY),
    "pooled mean of weights": ({"strategy": "pooled"}, SPARSE_TOO),
    "pooled mean of deltas": ({"strategy": "pooled", "strategy.of": "deltas"}, SPARSE_TOO),
    "hierarchical": ({"strategy": "hierarchical"}, SPARSE_TOO),
    "fedbuff": ({"strategy": "fedbuff", "strategy.buffer": 2}, SPARSE_TOO),
    "fedasync": ({"strategy": "fedasync"}, SPARSE_TOO),
    # every other pool compares clients coordinate by coordinate, or by the length of updates
    **{
        f"pooled {pool} of {of}": ({"strategy": "pooled", "strategy.reduction": pool, "strategy.of": of}, WHOLE)
        for pool in ("max", "lp", "median", "softmax", "geometric-median", "l2norm")
        for of in ("weights", "deltas")
    },
    "maxpool": ({"strategy": "maxpool"}, WHOLE),
    "adaptive": ({"strategy": "adaptive", "validation": 0.1}, WHOLE),
    "collaborative": ({"strategy": "collaborative"}, WHOLE),
    "edges by the median": ({"strategy": "hierarchical", "strategy.reduction": "median"}, WHOLE),
    "the median of edges": ({"strategy": "hierarchical", "strategy.above": "median"}, WHOLE),
    # how Flower's strategies combine replies is not known
    "Flower's median": ({"strategy": "flwr.serverapp.strategy:FedMedian"}, WHOLE),
    "local-only": ({"strategy": "local-only"}, set()),
}


def check(**settings: Any) -> Coding | None:
    config = make(**{**TINY, **settings})
    strategy = make_strategy(config, 4)
    if isinstance(strategy, Strategy):
        strategy.at_home = home_leaves.names_of(strategy, LOSS)
    return check_coding(config, strategy, LOSS)


@pytest.mark.parametrize("case", TABLE)
def test_the_table_of_strategies_and_codecs(case: str) -> None:
    settings, suits = TABLE[case]
    assert set(offered("codec")) - {"none"} == EVERY
    for codec in suits:
        assert check(**settings, codec=codec) is not None
    for codec in EVERY - suits:
        with pytest.raises(ConfigError, match=f"^codec.name = '{codec}': "):
            check(**settings, codec=codec)


@pytest.mark.parametrize(
    ("settings", "why"),
    [
        ({"strategy": "maxpool", "codec": "topk"}, "strategy maxpool pools replies by Max, to which .* use int8, fp16"),
        ({"codec": "dgc"}, r"is for one plain gradient step a round \(local.steps = 0, .*; give --local.steps 1"),
        ({"codec": "dgc", "local.steps": 2}, r"\(local.steps = 2, local.optimizer = sgd\)"),
        ({"codec": "dgc", "local.steps": 1, "local.optimizer": "adam"}, "local.optimizer = adam"),
        (
            {"codec": "dgc", "local.steps": 1, "strategy": "flwr.serverapp.strategy:FedAvgM"},
            "the server of .*FedAvgM takes a step of its own, which may have momentum; .* use fedavg",
        ),
        ({"codec": "dgc", "local.steps": 1, "strategy": "scaffold"}, "the server of scaffold takes a step of its own"),
        ({"codec": "dgc", "local.steps": 1, "strategy": "moon"}, "the clients of moon have a rule of their own"),
        ({"codec": "dgc", "local.steps": 1, "codec.feedback": True}, "dgc keeps by itself what it has not sent"),
        (
            {"codec": "int8", "codec.schedule": "8..1"},
            "codec.schedule = '8..1': Int8 has no factor that a schedule could change",
        ),
        ({"codec": "topk", "codec.schedule": "8"}, "codec.schedule = '8': must be two factors"),
        ({"codec": "topk", "codec.share": 0.0}, "codec.share = 0.0"),
        ({"codec": "powersgd", "codec.rank": 0}, "codec.rank = 0"),
        ({"codec": "topk", "codec.trees": "control"}, "control is no tree of a reply, which has none"),
        ({"codec": "topk", "strategy": "scaffold", "codec.trees": "other"}, "which has control"),
        ({"codec.feedback": True}, "codec.feedback = True: no codec is named"),
        ({"codec.schedule": "8..1"}, "no codec is named; give one, such as --codec topk"),
        (
            {"codec": "topk", "codec.schedule": "8..1", "strategy": "fedasync"},
            "codec.schedule = '8..1': changes with the round, and clients in flight have none in common",
        ),
        ({"codec": "topk", "attack": "ipm", "attack.share": 0.25}, "malicious clients of ipm agree on updates"),
    ],
)
def test_what_is_refused_and_how(settings: dict[str, Any], why: str) -> None:
    with pytest.raises(ConfigError, match=why):
        check(**settings)


class Largest(Strategy):
    """No paper: clients send a tree of which the server takes the largest."""

    payload_pools: ClassVar = {"most": Max()}

    def up(self, trained: Any) -> Any:
        return {"most": {"m": torch.zeros(3)}}


def test_a_tree_whose_pool_is_no_mean_is_coded_only_where_each_coordinate_is_sent() -> None:
    assert check(strategy=Largest(), codec="int8", **{"codec.trees": "most"}) is not None
    with pytest.raises(ConfigError, match="codec.trees = 'most': most is pooled by Max, .*; send it whole"):
        check(strategy=Largest(), codec="topk", **{"codec.trees": "most"})
