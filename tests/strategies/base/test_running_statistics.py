"""BatchNorm's running statistics under our own strategies: the clients' mean, whatever becomes of weights."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from experiments.config.recipe_files import make
from experiments.runs.setup import build
from fl_sim import RoundLog, from_arrays, rng, tree
from fl_sim.tree import Tree
from fl_sim.wire import records
from strategies.base.running_statistics import MeanOfStatistics
from strategies.base.strategy import Strategy
from strategies.fedavg import FedAvg
from strategies.maml import MAML
from strategies.maxpool import MaxPool
from strategies.perfedavg import PerFedAvg
from strategies.pools.max import Max
from strategies.pools.mean import Mean
from strategies.reptile import Reptile
from tests.fl_sim.small_federation import SIZES, STATISTICS, STILL, mean_statistics, network, own_statistics, train


class FedMomentum(FedAvg):
    """A user's own server step, for all leaves: it overshoots."""

    def server_step(self, model: Tree, pooled: Tree, server_round: int) -> Tree:
        return tree.lerp(model, pooled, 3.0)


def fedavg_2() -> Strategy:
    strategy = FedAvg()
    strategy.server_lr = 2.0
    return strategy


@pytest.mark.parametrize(
    ("strategy", "weights"),
    [
        (FedAvg(), (4, 9)),
        (fedavg_2(), (4, 9)),
        (FedMomentum(), (4, 9)),
        (MaxPool(), (4, 9)),
        (MaxPool(of="deltas"), (4, 9)),
        (Reptile(epsilon=2.0), (1, 1)),
    ],
    ids=lambda value: type(value).__name__,
)
@pytest.mark.parametrize("module", [network, lambda: network(nn.BatchNorm1d(4, momentum=None))], ids=["", "cumulative"])
def test_statistics_are_the_clients_mean(strategy: Any, weights: tuple[int, int], module: Any) -> None:
    """(n_0 s_0 + n_1 s_1) / (n_0 + n_1); with momentum None a client's own are the mean over its batches."""
    found = records.decode(train(strategy, SIZES, STILL, module=module()).arrays)
    for k, value in mean_statistics(weights, module).items():
        torch.testing.assert_close(found[k], value, rtol=1e-12, atol=1e-15)
        assert found[k].dtype == value.dtype


class Assigning(nn.Module):
    """Subtracts a moving average that it assigns anew in training, instead of writing into it."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("average", torch.ones(4))
        self.average: torch.Tensor

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.training:
            self.average = 0.75 * self.average + 0.25 * x.mean(0)
        return x - self.average


class Spectral(nn.Linear):
    """A linear layer with the spectral norm of PyTorch: two buffers, ``u`` and ``v`` of a power iteration."""

    def __init__(self) -> None:
        super().__init__(4, 4)
        nn.utils.parametrizations.spectral_norm(self)


@pytest.mark.parametrize(
    "norm",
    [
        lambda: nn.BatchNorm1d(4, affine=False),
        lambda: nn.SyncBatchNorm(4),
        lambda: nn.InstanceNorm1d(4, track_running_stats=True),
        Assigning,
        Spectral,
        lambda: nn.BatchNorm1d(4, track_running_stats=False),
    ],
    ids=["no affine", "sync", "instance", "assigning", "spectral", "no statistics"],
)
def test_every_buffer_that_a_forward_writes_is_averaged(norm: Any) -> None:
    """Reptile with a step of 2, whose mean is unweighted: on the loop, and where vmap must give way to it."""

    def module() -> nn.Module:
        with rng.keyed_globals(1):
            middle: nn.Module = norm()
        if isinstance(middle, nn.InstanceNorm1d):
            middle = nn.Sequential(
                nn.Unflatten(1, (4, 1)), nn.Upsample(scale_factor=2), middle, nn.AvgPool1d(2), nn.Flatten()
            )
        return network(middle)

    means = mean_statistics((1, 1), module)
    for engine in ("loop",) if norm is Spectral else ("loop", "vmap"):  # there vmap would take seconds to give way
        found = records.decode(train(Reptile(epsilon=2.0), SIZES, STILL, module=module(), engine=engine).arrays)
        assert set(means) <= set(found) and len(found) == len(module().state_dict())
        for k, value in means.items():
            torch.testing.assert_close(found[k], value, rtol=1e-12, atol=1e-15, msg=k)
        still = {k for k, x in module().named_buffers() if torch.equal(means[k], x.to(means[k].dtype))}
        assert still == {
            k for k in means if "InstanceNorm" in str(module()) and k.endswith("tracked")
        }  # it never counts


def test_a_run_of_such_a_network_is_on_the_loop() -> None:
    """Beside other runs (``--vmap_over``) padded samples would enter its averages."""
    x = torch.arange(12.0).reshape(6, 2)
    task = from_arrays(x, torch.arange(6) % 2, x_test=x[:2], y_test=torch.arange(2))
    module = nn.Sequential(nn.Linear(2, 4), Assigning(), nn.Linear(4, 2))
    engine = build(make(task=task, model=module, clients=2, engine="vmap")).engine
    assert engine.name == "loop" and "(1.average)" in engine.reason


def test_a_pool_keeps_what_it_does_with_weights() -> None:
    """Two replies of weights 1 and 3, pooled in two blocks: maximum of w, mean (1 * 1 + 3 * 5) / 4 = 4 of s."""
    like = {"w": torch.zeros(2), "s": torch.zeros(()), "n": torch.zeros((), dtype=torch.int64)}
    replies: list[Mapping[str, torch.Tensor]] = [
        {"w": torch.tensor([1.0, 7.0]), "s": torch.tensor(1.0), "n": torch.tensor(1)},
        {"w": torch.tensor([2.0, 3.0]), "s": torch.tensor(5.0), "n": torch.tensor(4)},
    ]
    pool = MeanOfStatistics(Max(), ["s", "n"])
    parts = [
        pool.add(pool.start(like), {k: x[None] for k, x in reply.items()}, torch.tensor([weight], dtype=torch.float64))
        for reply, weight in zip(replies, (1.0, 3.0), strict=True)
    ]
    pooled = pool.finish(pool.merge(pool.merge(pool.start(like), parts[0]), parts[1]), like)
    assert {k: x.tolist() for k, x in pooled.items()} == {"w": [2.0, 7.0], "s": 4.0, "n": 3}
    assert pooled["n"].dtype == torch.int64


def test_without_statistics_and_for_the_mean_the_pool_is_the_strategys_own() -> None:
    strategy = MaxPool()
    assert type(strategy.reply_pool) is Max
    strategy.statistics = STATISTICS
    assert type(strategy.reply_pool) is MeanOfStatistics and "statistics" not in strategy.__getstate__()
    average = FedAvg()
    average.statistics = STATISTICS
    assert type(average.reply_pool) is Mean


def test_maml_keeps_the_statistics_and_says_so(tmp_path: Path) -> None:
    with RoundLog.create(tmp_path, "run", "") as log:
        found = records.decode(train(MAML(), [8, 8], {"local.batch_size": 0}, rounds=2, log=log).arrays)
        [event] = map(json.loads, (log.path / "events.jsonl").read_text().splitlines())
    assert event["event"] == "running_statistics" and event["names"] == list(STATISTICS)
    assert event["reason"] == "the replies do not contain these arrays, so that they stay as they are"
    assert all(torch.equal(found[k], network().state_dict()[k].to(found[k].dtype)) for k in STATISTICS)


def test_perfedavgs_statistics_are_those_of_its_outer_batches() -> None:
    """With an inner learning rate of 0 they are FedAvg's."""
    found = records.decode(train(PerFedAvg(inner_lr=0.0), SIZES, STILL).arrays)
    first, second = own_statistics(0), own_statistics(1)
    for k in STATISTICS[:2]:
        torch.testing.assert_close(found[k], (first[k] + second[k]) / 2, rtol=1e-12, atol=1e-15)
