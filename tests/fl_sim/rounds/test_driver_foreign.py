"""Flower's own strategies and wrappers through ``run_rounds``, unchanged: reproducible, one reply a client, numbers by hand."""

import random
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from flwr.app import ArrayRecord, ConfigRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.clientapp.mod import fixedclipping_mod
from flwr.serverapp import Grid
from flwr.serverapp.strategy import (
    DifferentialPrivacyClientSideFixedClipping,
    DifferentialPrivacyServerSideAdaptiveClipping,
    DifferentialPrivacyServerSideFixedClipping,
    FedAdam,
    FedAvg,
    FedAvgM,
    FedMedian,
    FedProx,
    FedTrimmedAvg,
    Krum,
)

from clients.app import make_app
from experiments import run
from experiments.check.world import SIZES, TRAINING, UNSEEN, app_of, trained, world
from experiments.config.recipe_files import make
from experiments.runs.foreign_strategy import shared
from fl_sim import Partition, RoundFailed, SimulationGrid, load, run_rounds, tree
from fl_sim.grids import monitored
from fl_sim.learning.loss import Loss
from fl_sim.tree import Tree
from fl_sim.wire import records
from strategies import fedavg

COHORT = len(SIZES) - UNSEEN
SOME = {"fraction_train": 0.5, "fraction_evaluate": 0.0, "min_train_nodes": 4}
ALL = {"fraction_train": 1.0, "fraction_evaluate": 0.0}
STRATEGIES: dict[str, Any] = {
    "fedavg": lambda: FedAvg(**SOME),
    "fedavgm": lambda: FedAvgM(**SOME, server_momentum=0.9, server_learning_rate=0.5),
    "fedadam": lambda: FedAdam(**SOME),
    "krum": lambda: Krum(**SOME, num_malicious_nodes=1),
    "fedmedian": lambda: FedMedian(**SOME),
    "fedtrimmedavg": lambda: FedTrimmedAvg(**SOME, beta=0.3),
}


def draw_from_all() -> None:
    random.random()
    np.random.random(3)  # noqa: NPY002
    torch.rand(5)


class Meddling(SimulationGrid):
    """A grid at whose every exchange somebody else draws from the global generators."""

    def send_and_receive(self, messages: Iterable[Message], *, timeout: float | None = None) -> Any:
        draw_from_all()
        return super().send_and_receive(messages, timeout=timeout)


@pytest.mark.parametrize("name", STRATEGIES)
def test_it_trains_on_blocks_and_reproducibly(name: str) -> None:
    first = trained(STRATEGIES[name](), engine="vmap")
    random.seed(7)
    again = trained(STRATEGIES[name](), engine="vmap", grid=Meddling)
    start = world()[0].initial()
    assert tree.digest(first.model) == tree.digest(again.model) != tree.digest(start)
    assert [row["completed"] for row in first.result.rows[1:]] == [4, 4, 4]
    for k, value in trained(STRATEGIES[name](), engine="loop").model.items():
        torch.testing.assert_close(value, first.model[k], rtol=1e-9, atol=1e-11)


def test_another_seed_trains_other_clients() -> None:
    def chosen(seed: int) -> list[list[int]]:
        class Recorded(FedAvg):
            def aggregate_train(self, server_round: int, replies: Iterable[Message]) -> Any:
                replies = list(replies)
                rounds.append(sorted(reply.metadata.src_node_id for reply in replies))
                return super().aggregate_train(server_round, replies)

        rounds: list[list[int]] = []
        grid = SimulationGrid(app_of(fedavg.FedAvg()), len(SIZES), seed=seed)
        run_rounds(
            Recorded(**SOME),
            grid,
            records.encode(world()[0].initial()),
            3,
            train_config=records.config(TRAINING),
            seed=seed,
        )
        return rounds

    assert chosen(0) == chosen(0) != chosen(1)


def test_fedavg_of_flower_is_ours_when_the_same_clients_train() -> None:
    ours = fedavg.FedAvg()
    theirs = trained(FedAvg(**ALL), engine="loop").model
    grid = SimulationGrid(app_of(ours), len(SIZES), holdout_clients=UNSEEN)
    settings = records.config({**TRAINING, "system.stragglers": 0.0})  # Flower's FedAvg knows none
    result = run_rounds(ours, grid, records.encode(world()[0].initial()), 3, train_config=settings)
    for name, value in records.decode(result.arrays).items():
        torch.testing.assert_close(theirs[name], value, rtol=1e-9, atol=1e-12)


def test_integer_counters_and_widened_types_come_back_to_clients_as_they_were() -> None:
    """Flower averages BatchNorm's counter into float64, FedAdam widens float32: neither is a client's failure."""
    module = torch.nn.Sequential(torch.nn.Linear(6, 4), torch.nn.BatchNorm1d(4), torch.nn.Linear(4, 3))
    loss = Loss(module, world()[0].task, torch.float32)
    app = make_app(loss, Partition.of(np.split(np.arange(30), 3)))
    for strategy in (FedAvg(**ALL), FedAdam(**ALL)):
        grid = SimulationGrid(app, 3)
        settings = records.config({"local.lr": 0.05, "local.batch_size": 5, "rounds": 3})
        result = run_rounds(strategy, grid, records.encode(loss.initial()), 3, train_config=settings)
        wide = {k for k, v in records.decode(result.arrays).items() if v.dtype == torch.float64}
        assert "1.num_batches_tracked" in wide and result.rows[-1]["completed"] == 3
        received = loss.received(records.decode(result.arrays))
        assert {k: v.dtype for k, v in received.items()} == {k: v.dtype for k, v in loss.initial().items()}


def client_updates(strategy: fedavg.FedAvg, blocks: int) -> tuple[Tree, list[Tree], list[int]]:
    """The initial model, each client's model after round 1, its examples: from a grid that does not pool."""
    grid = SimulationGrid(app_of(strategy), 3, block_size=blocks)
    initial = records.encode(world()[0].initial())
    messages = strategy.configure_train(1, initial, records.config({**TRAINING, "system.stragglers": 0.0}), grid)
    replies = list(grid.send_and_receive(messages))
    models = [records.decode(reply.content["arrays"]) for reply in replies]
    return records.decode(initial), models, [int(reply.content["metrics"]["num-examples"]) for reply in replies]


def clipped_mean(start: Tree, models: list[Tree], examples: list[int], norm: float) -> Tree:
    """By hand: sum_k n_k (w + d_k min(1, norm / |d_k|)) / sum_k n_k, with d_k the update of client k."""
    total = {k: torch.zeros_like(v) for k, v in start.items()}
    for model, n in zip(models, examples, strict=True):
        delta = {k: model[k] - start[k] for k in start}
        factor = min(1.0, norm / float(sum((d**2).sum() for d in delta.values()) ** 0.5))
        total = {k: total[k] + n * (start[k] + factor * delta[k]) for k in start}
    return {k: v / sum(examples) for k, v in total.items()}


@pytest.mark.parametrize("engine", ["loop", "vmap"])
def test_a_wrapper_around_our_fedavg_clips_every_client_of_a_block(engine: str) -> None:
    start, models, examples = client_updates(fedavg.FedAvg(), blocks=3)
    norms = [float(tree.norm(tree.sub(model, start))) for model in models]
    norm = sorted(norms)[1] * 0.9  # clips two of the three
    wrapper = DifferentialPrivacyServerSideFixedClipping(
        fedavg.FedAvg(), noise_multiplier=0.0, clipping_norm=norm, num_sampled_clients=3
    )
    grid = SimulationGrid(app_of(fedavg.FedAvg()), 3, engine=engine, block_size=3)
    settings = records.config({**TRAINING, "system.stragglers": 0.0})
    result = run_rounds(wrapper, grid, records.encode(start), 1, train_config=settings)
    for k, wanted in clipped_mean(start, models, examples, norm).items():
        torch.testing.assert_close(records.decode(result.arrays)[k], wanted, rtol=1e-9, atol=1e-12)
    assert sum(n > norm for n in norms) == 2 and grid.pool is None


def test_the_noise_of_a_wrapper_is_reproducible_and_of_its_size() -> None:
    def noisy(multiplier: float) -> Tree:
        wrapper = DifferentialPrivacyServerSideAdaptiveClipping(
            fedavg.FedAvg(), multiplier, 3, clipped_count_stddev=5.0
        )
        grid = SimulationGrid(app_of(fedavg.FedAvg()), 3)
        settings = records.config({**TRAINING, "system.stragglers": 0.0})
        return records.decode(
            run_rounds(wrapper, grid, records.encode(world()[0].initial()), 2, train_config=settings).arrays
        )

    draw_from_all()
    once = noisy(0.1)
    draw_from_all()
    assert tree.digest(once) == tree.digest(noisy(0.1)) != tree.digest(noisy(0.0))


def test_client_side_clipping_needs_the_mod_and_works_with_it() -> None:
    start, models, examples = client_updates(fedavg.FedAvg(), blocks=3)
    norm = 0.5 * min(float(tree.norm(tree.sub(model, start))) for model in models)
    inner = app_of(fedavg.FedAvg())
    app = ClientApp(mods=[fixedclipping_mod])

    @app.train(mods=[fixedclipping_mod])
    def train(message: Message, context: Context) -> Message:
        return inner(message, context)

    def wrapped(client_app: ClientApp) -> ArrayRecord:
        wrapper = DifferentialPrivacyClientSideFixedClipping(fedavg.FedAvg(), 0.0, norm, 3)
        grid, settings = SimulationGrid(client_app, 3), records.config({**TRAINING, "system.stragglers": 0.0})
        return run_rounds(wrapper, grid, records.encode(start), 1, train_config=settings).arrays

    for k, wanted in clipped_mean(start, models, examples, norm).items():
        torch.testing.assert_close(records.decode(wrapped(app))[k], wanted, rtol=1e-9, atol=1e-12)
    with pytest.raises(ValueError, match="clipping_norm.*fixedclipping_mod"):
        wrapped(inner)
    with pytest.raises(ValueError, match="proximal-mu.*--strategy fedprox"):
        trained(FedProx(**ALL, proximal_mu=0.1))


def test_what_a_client_draws_depends_on_no_order() -> None:
    app = ClientApp()

    @app.train()
    def train(message: Message, context: Context) -> Message:
        draws = [random.random(), np.random.random(), float(torch.rand(()))]  # noqa: NPY002
        return Message(RecordDict({"metrics": MetricRecord({"draws": draws})}), reply_to=message)

    def ask(grid: SimulationGrid, nodes: Iterable[int], server_round: int) -> dict[int, Any]:
        content = RecordDict({"config": ConfigRecord({"server-round": server_round})})
        replies = grid.send_and_receive([Message(content, node, "train") for node in nodes])
        return {reply.metadata.src_node_id: reply.content["metrics"]["draws"] for reply in replies}

    one, two = SimulationGrid(app, 4), SimulationGrid(app, 4)
    first, second = ask(one, [2, 3, 4, 5], 1), ask(one, [2, 3], 2)
    assert (second, first) == (ask(two, [3, 2], 2), ask(two, [5], 1) | ask(two, [4, 2, 3], 1))
    everything = [*map(tuple, first.values()), *map(tuple, second.values()), *map(tuple, ask(one, [2, 2], 1).values())]
    assert len(set(everything)) == len(everything) == 7
    assert ask(SimulationGrid(app, 4, seed=1), [2], 1) != {2: first[2]}


class Asking(FedAvg):
    """A strategy that asks clients something before it chooses among them."""

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        replies = grid.send_and_receive([Message(RecordDict(), node, "query") for node in grid.get_node_ids()])
        self.heard = len(list(replies))
        return super().configure_train(server_round, arrays, config, grid)


def asked(fails: int) -> ClientApp:
    app = ClientApp()

    @app.query()
    def query(message: Message, context: Context) -> Message:
        if context.node_config["partition-id"] == fails:
            raise RuntimeError("no answer")
        return Message(RecordDict(), reply_to=message)

    @app.train()
    def train(message: Message, context: Context) -> Message:
        content = {"arrays": message.content["arrays"], "metrics": MetricRecord({"num-examples": 1})}
        return Message(RecordDict(content), reply_to=message)

    return app


def test_what_a_strategy_asks_by_itself_is_watched_too() -> None:
    start = ArrayRecord([np.zeros(2, np.float32)])
    strategy = Asking(fraction_evaluate=0.0)
    run_rounds(strategy, SimulationGrid(asked(-1), 5), start, 1)
    assert strategy.heard == 5
    with pytest.raises(RoundFailed, match=r"(?s)round 1, client 3, query.*no answer"):
        run_rounds(strategy, SimulationGrid(asked(3), 5), start, 1)
    run_rounds(strategy, SimulationGrid(asked(3), 5), start, 1, failures="tolerate:0.2")
    assert strategy.heard == 4


def test_waiting_for_nodes_that_never_come_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(monitored, "WAIT_S", 0.5)
    monkeypatch.setattr(monitored, "POLLS", 3)
    with pytest.raises(RoundFailed, match=r"more nodes than the 3 there are.*--clients"):
        run_rounds(FedAvg(min_available_nodes=4), SimulationGrid(asked(-1), 3), ArrayRecord([np.zeros(2)]), 1)


def test_the_command_line_runs_flowers_strategies(tmp_path: Path) -> None:
    settings: dict[str, Any] = {
        "task": "synthetic",
        "partition": "iid",
        "rounds": 2,
        "clients": 7,
        "cohort": 3,
        "out": str(tmp_path),
    }
    ours = run.run(**settings)
    theirs = run.run(strategy="flwr.serverapp.strategy:FedAvg", **settings)
    assert [theirs.log.rounds["completed"].tolist()[1:], theirs.summary["status"]] == [[3, 3], "completed"]
    assert ours.log.rounds["loss"].notna().all() and theirs.log.rounds["loss"].notna().all()
    adam = [
        "--strategy",
        "flwr.serverapp.strategy:FedAdam",
        "--strategy.eta",
        "0.01",
        "--task",
        "synthetic",
        "--partition",
        "iid",
    ]
    assert run.main([*adam, "--rounds", "2", "--clients", "4", "--out", str(tmp_path / "adam"), "--quiet"]) == 0
    [folder] = (tmp_path / "adam").iterdir()
    assert load(folder).rounds["loss"].notna().all()


def test_personal_evaluation_works_for_flowers_strategies_too(tmp_path: Path) -> None:
    settings: dict[str, Any] = {
        "task": "digits",
        "rounds": 1,
        "clients": 5,
        "out": str(tmp_path),
        "partition.held_out": 0.2,
    }
    made = run.run(strategy="flwr.serverapp.strategy:FedAvg", personalize_steps=2, **settings)
    assert made.summary["personal_accuracy"] is not None
    assert set(made.log.clients["phase"]) == {"train", "personal"}


@pytest.mark.parametrize(
    ("said", "match"),
    [
        ({"cohort": 2, "strategy.fraction_train": 0.5}, "cohort = 2, strategy.fraction_train = 0.5"),
        ({"weighting": "uniform"}, "weighting = 'uniform'"),
        ({"system": {"stragglers": 0.5}}, "system.stragglers = 0.5"),
    ],
)
def test_settings_that_flowers_strategies_do_not_take_are_refused(
    said: dict[str, Any], match: str, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match=match):
        run.run(**{"strategy.name": "flwr.serverapp.strategy:FedAvg", "out": str(tmp_path), **said})


def test_a_cohort_is_never_lost_in_rounding() -> None:
    """int(n * (cohort / n)) is below cohort for some n, such as 49 * (1 / 49) < 1; min_train_nodes holds it."""
    assert int(49 * (1 / 49)) == 0
    base = make(strategy="flwr.serverapp.strategy:FedAvg", clients=120)
    for n in range(1, 121):
        for cohort in range(1, n + 1):
            params = shared(replace(base, cohort=cohort), n)
            assert max(int(n * params["fraction_train"]), params["min_train_nodes"]) == cohort
