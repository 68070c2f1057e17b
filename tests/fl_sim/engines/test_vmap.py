"""The loop and vmap engines agree, and a client whose training raises is named."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch
from flwr.app import ConfigRecord
from torch import Tensor, nn

from clients.app import make_app
from fl_sim import Callback, Partition, Run, SimulationGrid, from_arrays, rng, run_rounds, tree
from fl_sim.engines.choose import ENGINES, choose
from fl_sim.engines.results import BlockResult
from fl_sim.learning.loss import Batch, Loss
from fl_sim.learning.rule import Metrics
from fl_sim.learning.settings import Local
from fl_sim.learning.transform import Transform
from fl_sim.tree import Tree
from fl_sim.wire import records
from strategies.base.naming import name_of
from strategies.base.strategy import Strategy
from strategies.fedavg import FedAvg

SETTINGS = {"local.epochs": 2, "local.batch_size": 4, "local.lr": 0.05, "local.momentum": 0.9}
SIZES = [9, 4, 6, 13, 8]


class Watch(Callback):
    def __init__(self) -> None:
        self.notes: list[str] = []
        self.failed: dict[int, str] = {}

    def on_block(self, run: Run, result: BlockResult) -> None:
        self.notes += result.notes
        self.failed |= {answer.client: answer.reason for answer in result.clients if answer.reason}


def train(
    module: nn.Module, engine: str, strategy: Strategy | None = None, inputs: tuple[int, ...] = (6,), **options: Any
) -> tuple[Tree, Watch]:
    draw = np.random.default_rng(0)
    x, y = draw.normal(size=(sum(SIZES), *inputs)), draw.integers(0, 3, sum(SIZES))
    task = from_arrays(x, y, x_test=x[:2], y_test=y[:2], outputs=3)
    object.__setattr__(task, "transform", options.pop("transform", task.transform))
    loss = Loss(module, task, options.pop("dtype", torch.float64))
    strategy, watch = strategy or FedAvg(), Watch()
    app = make_app(
        loss,
        Partition.of(np.split(np.arange(sum(SIZES)), np.cumsum(SIZES)[:-1])),
        {name_of(type(strategy)): type(strategy)},
    )
    grid, failures = SimulationGrid(app, len(SIZES), engine=engine, **options), "tolerate:0.5"
    result = run_rounds(
        strategy,
        grid,
        records.encode(loss.initial()),
        2,
        train_config=ConfigRecord(SETTINGS),
        failures=failures,
        callbacks=[watch],
    )
    return records.decode(result.arrays), watch


def mlp(*middle: nn.Module) -> nn.Module:
    with rng.keyed_globals(0):
        return nn.Sequential(nn.Flatten(), nn.Linear(6, 8), *middle, nn.ReLU(), nn.Linear(8, 3))


@pytest.mark.parametrize(
    "middle", [nn.Dropout(0.5), nn.GroupNorm(2, 8), nn.LayerNorm(8)], ids=lambda m: type(m).__name__
)
@pytest.mark.parametrize("dtype, close", [(torch.float64, 1e-9), (torch.float32, 1e-4)], ids=["float64", "float32"])
def test_layers_agree_on_all_engines(middle: nn.Module, dtype: torch.dtype, close: float) -> None:
    (model, _), (other, watch) = (train(mlp(middle), engine, dtype=dtype, block_size=3) for engine in ENGINES)
    assert float(tree.norm(tree.sub(model, other))) < close * float(tree.norm(model)) and not watch.notes


@pytest.mark.parametrize("augment", [False, True])
def test_pictures_agree_augmentation_included(augment: bool) -> None:
    with rng.keyed_globals(0):
        module = nn.Sequential(nn.Conv2d(2, 4, 3), nn.ReLU(), nn.Dropout(0.25), nn.Flatten(), nn.Linear(4 * 16, 3))
    results = [
        train(module, engine, inputs=(2, 6, 6), transform=Transform(augment=augment), block_size=2)
        for engine in ENGINES
    ]
    assert (
        float(tree.norm(tree.sub(results[0][0], results[1][0]))) < 1e-9 * float(tree.norm(results[0][0]))
        and not results[1][1].notes
    )
    plain, _ = train(module, "loop", inputs=(2, 6, 6), block_size=2)
    assert (tree.digest(plain) == tree.digest(results[0][0])) != augment


@pytest.mark.parametrize("engine", ENGINES)
def test_batch_norm_trains_on_the_loop_and_its_counter_stays_whole(engine: str) -> None:
    """``choose`` gives the loop; a grid with engine vmap falls back to the loop with a note."""
    draw, watch = np.random.default_rng(0), Watch()
    x, y = draw.normal(size=(18, 6)), draw.integers(0, 3, 18)
    loss = Loss(mlp(nn.BatchNorm1d(8)), from_arrays(x, y, x_test=x, y_test=y, outputs=3), torch.float64)
    assert choose("vmap", loss.training, "cpu").name == "loop"
    app = make_app(loss, Partition.of(np.split(np.arange(18), [4, 10])))  # 4, 6, 8 samples: 1, 2, 2 batches an epoch
    grid, start = SimulationGrid(app, 3, engine=engine), records.encode(loss.initial())
    result = run_rounds(FedAvg(), grid, start, 2, train_config=ConfigRecord(SETTINGS), callbacks=[watch])
    model, initial = records.decode(result.arrays), loss.initial()
    assert model["2.num_batches_tracked"].dtype == torch.int64
    # By examples (4 * 2 + 6 * 4 + 8 * 4) / 18 = 3.6 batches in 2 epochs, rounded to 4, in each of 2 rounds.
    assert int(model["2.num_batches_tracked"]) == 8
    assert all(not torch.equal(model[k], initial[k]) and bool(torch.isfinite(model[k]).all()) for k in model)
    assert len(watch.notes) == (2 if engine == "vmap" else 0) and all(
        "its clients ran on the loop" in note for note in watch.notes
    )


def test_the_loops_faster_layers_agree_with_vmaps_plain_ones() -> None:
    """A convolution and a linear layer large enough for ``winograd`` and ``low_rank``, with dropout and momentum."""
    with rng.keyed_globals(0):
        module = nn.Sequential(
            *(
                nn.Conv2d(2, 32, 3),
                nn.ReLU(),
                nn.Conv2d(32, 64, 3, padding=1),
                nn.MaxPool2d(4),
                nn.Dropout(0.25),
                nn.Flatten(),
            ),
            *(nn.Linear(576, 256), nn.ReLU(), nn.Dropout(0.3), nn.Linear(256, 3)),
        )
    results = [train(module, engine, inputs=(2, 14, 14), block_size=3) for engine in ENGINES]
    assert (
        float(tree.norm(tree.sub(results[0][0], results[1][0]))) < 1e-9 * float(tree.norm(results[0][0]))
        and not results[1][1].notes
    )


class Scaled(nn.Module):
    """A network with a parameter without axes."""

    def __init__(self) -> None:
        super().__init__()
        self.inner, self.scale = mlp(), nn.Parameter(torch.tensor(2.0))

    def forward(self, x: Tensor) -> Tensor:
        scaled: Tensor = self.inner(x) * self.scale
        return scaled


@pytest.mark.parametrize("engine", ENGINES)
def test_a_parameter_may_be_a_scalar(engine: str) -> None:
    model, watch = train(Scaled(), engine)
    assert model["scale"].shape == () and float(model["scale"]) != 2.0 and not watch.failed and not watch.notes


class FedSGD(Strategy):
    """Clients reply with one gradient: McMahan et al. 2017."""

    reply_kind = "update"

    def local_update(
        self, model: Tree, state: Tree, batches: Mapping[str, Iterable[Batch]], loss: Loss, local_: Local
    ) -> tuple[Tree, Tree, Metrics]:
        grads, value, _ = self.gradient(model, model, next(iter(batches["train"])), loss)
        return grads, state, {"loss": value}

    def server_step(self, model: Tree, pooled: Tree, server_round: int) -> Tree:
        return tree.add(model, pooled, -0.1)


def test_a_rule_may_reply_with_the_gradient_itself() -> None:
    """Under vmap this gradient is a ``Product`` of two matrices that has not been computed yet."""
    models = {engine: train(mlp(), engine, FedSGD()) for engine in ("loop", "vmap")}
    assert not models["vmap"][1].notes
    assert float(tree.norm(tree.sub(models["loop"][0], models["vmap"][0]))) < 1e-12


class Random(nn.Module):
    """Draws from torch's global generator, as functional dropout does."""

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.dropout(x, 0.5, self.training)


def test_global_draws_run_on_the_loop_keyed_by_client_and_round() -> None:
    looped, _ = train(mlp(Random()), "loop")
    torch.manual_seed(99)
    batched, watch = train(mlp(Random()), "vmap")
    assert len(watch.notes) == 2 and "randomness" in watch.notes[0]  # a note for each round's block
    assert tree.digest(looped) == tree.digest(batched) != tree.digest(train(mlp(), "loop")[0])


@pytest.mark.parametrize("block_size", [1, 2])
def test_global_draws_differ_between_clients_and_rounds_and_depend_on_nothing_else(block_size: int) -> None:
    """Two clients, equal samples, a learning rate of 0: only the draws can make the four losses differ."""
    x, y = np.tile(np.random.default_rng(0).normal(size=6), (8, 1)), np.zeros(8, np.int64)
    loss = Loss(mlp(Random()), from_arrays(x, y, x_test=x, y_test=y, outputs=3), torch.float64)
    grid = SimulationGrid(make_app(loss, Partition.of([np.arange(4), np.arange(4, 8)])), 2, block_size=block_size)
    settings, arrays = records.config({"local.batch_size": 0, "local.lr": 0.0}), records.encode(loss.initial())
    losses: dict[tuple[int, int, int], float] = {}
    for order in (1, -1):
        for server_round in (1, 2):
            messages = list(FedAvg().configure_train(server_round, arrays, settings, grid))
            for reply in grid.send_and_receive(messages[::order]):
                losses[order, server_round, reply.metadata.src_node_id] = records.numbers(reply.content)["loss"]
    assert len(losses) == 8 and len(set(losses.values())) == 4
    assert all(losses[1, *key] == value for (_, *key), value in losses.items())


@dataclass
class Fragile(Strategy):
    """Fails for a client whose first sample lies below ``floor``: it raises, or replies with NaN or infinity."""

    floor: float = -9.0
    way: str = "raise"

    def local_update(
        self, model: Tree, state: Tree, batches: Mapping[str, Iterable[Batch]], loss: Loss, local_: Local
    ) -> tuple[Tree, Tree, Metrics]:
        kept = {name: list(stream) for name, stream in batches.items()}
        first = kept["train"][0].data["x"].flatten()[0]
        new, state, metrics = super().local_update(model, state, kept, loss, local_)
        if self.way == "raise":
            if float(first) < self.floor:
                raise ZeroDivisionError(f"a sample of {float(first):.1f}")
            return new, state, metrics
        bad = {"nan": float("nan"), "inf": float("inf")}.get(self.way, 0.0)
        if self.way in ("nan", "inf"):
            new["1.bias"] = torch.where(first < self.floor, bad, new["1.bias"])
        else:
            metrics["loss"] = torch.where(first < self.floor, float("nan"), metrics["loss"])
        return new, state, metrics


@pytest.mark.parametrize(
    "way, expected",
    [
        ("raise", "ZeroDivisionError: a sample of"),
        ("nan", "NaN or infinity in 1.bias"),
        ("inf", "NaN or infinity"),
        ("loss", "loss is nan"),
    ],
)
@pytest.mark.parametrize("block_size", [1, 5])
@pytest.mark.parametrize("engine", ENGINES)
def test_one_bad_client_is_named_and_the_others_count(engine: str, block_size: int, way: str, expected: str) -> None:
    bad, watch = train(mlp(), engine, Fragile(floor=-0.8, way=way), block_size=block_size)
    assert watch.failed and len(watch.failed) < len(SIZES)
    assert all(expected in reason for reason in watch.failed.values())
    assert bool(watch.notes) == (engine == "vmap" and way == "raise")
    assert all(bool(torch.isfinite(v).all()) for v in bad.values())
    others, _ = train(mlp(), "loop", Fragile(floor=-0.8, way="raise"), block_size=2)
    # however they fail, the same clients are left out
    assert float(tree.norm(tree.sub(bad, others))) < 1e-9 * float(tree.norm(bad))
