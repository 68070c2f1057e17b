"""Edges by hand, against a plain loop, and as FedAvg where the server pools them in each round."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from experiments.config.recipe_files import make
from experiments.runs.execute import execute
from experiments.runs.setup import build
from fl_sim import load, tree
from fl_sim.errors import ConfigError
from strategies.base.edges import Levels
from strategies.fedavg import FedAvg
from strategies.hierarchical import Hierarchical
from strategies.maxpool import MaxPool
from tests.experiments.config.tiny_world import NAMES as WORLD

HALFWAY = {"local.lr": 0.5, "local.steps": 1, "local.batch_size": 0}
"""One step from w to (w + m) / 2 for a client of curvature 1 and minimum m."""
COLUMNS = ("edge_bytes_up", "edge_bytes_down")


@pytest.mark.parametrize("of", ["weights", "deltas"])
@pytest.mark.parametrize("engine", ["loop", "vmap"])
def test_two_rounds_by_hand(quadratics: Any, engine: str, of: Any) -> None:
    # Clients 0 and 3 (minima 8 and 4, one sample and three) belong to one edge, 1 and 2 (minima 0 and 16) to the other.
    # Round 1 from 0: replies m / 2. Edge A: (4 + 3 * 2) / 4 = 5/2, weight 4; B: (0 + 8) / 2 = 4, weight 2.
    #   By now the server would have (4 * 5/2 + 2 * 4) / 6 = 3.
    # Round 2: A's clients start from 5/2: (5/2 + 8) / 2 = 21/4 and (5/2 + 4) / 2 = 13/4; A = (21 + 39) / 16 = 15/4.
    #   B's from 4: 2 and 10; B = 6. Weights are 8 and 4 now; the server gets (8 * 15/4 + 4 * 6) / 12 = 9/2.
    assert [Levels.parse(2, 2).edge_of(0, client) for client in range(4)] == [1, 0, 0, 1]
    federation = quadratics([(1, 8), (1, 0), (1, 16), (1, 4)], [1, 1, 1, 3])
    strategy = Hierarchical(edges=2, every=2, of=of)
    first = federation.train(strategy, HALFWAY, rounds=1, engine=engine)
    assert float(first.model["w"]) == pytest.approx(3, rel=1e-15)
    assert sorted(x["w"].item() for k, x in strategy.server_state.items() if "." in k) == [2.5, 4.0]
    strategy = Hierarchical(edges=2, every=3, of=of)
    federation.train(strategy, HALFWAY, rounds=2, engine=engine)
    assert sorted(x["w"].item() for k, x in strategy.server_state.items() if "." in k) == pytest.approx([3.75, 6])
    strategy = Hierarchical(edges=2, every=2, of=of)
    second = federation.train(strategy, HALFWAY, rounds=2, engine=engine)
    assert float(second.model["w"]) == pytest.approx(4.5, rel=1e-15)
    assert strategy.server_state == {}
    # Eight bytes a model: both edges get the first one, and after round 2 send theirs and get the server's.
    assert [[row[k] for k in COLUMNS] for row in second.rows[1:]] == [[0, 16], [16, 16]]


@pytest.mark.parametrize("cohort", [0, 3])
@pytest.mark.parametrize("weighting", ["examples", "uniform"])
def test_pooled_by_the_server_in_each_round_it_is_fedavg(smooth: Any, cohort: int, weighting: Any) -> None:
    models = []
    for strategy in (FedAvg(), Hierarchical(edges=2, every=1), Hierarchical(edges="3,2", every="1,1")):
        strategy.cohort, strategy.server_lr, strategy.weighting = cohort, 0.5, weighting
        models.append(smooth.train(strategy, {"local.batch_size": 4}, rounds=3).model)
    for other in models[1:]:
        for name, value in models[0].items():
            torch.testing.assert_close(other[name], value, rtol=0, atol=1e-12)


@pytest.mark.parametrize("engine", ["loop", "vmap"])
def test_rounds_of_some_clients_agree_with_a_plain_loop(smooth: Any, batch_of: Any, engine: str) -> None:
    strategy = Hierarchical(edges=3, every=2)
    strategy.cohort, strategy.seed, lr = 2, 1, 0.2
    settings = {"local.lr": lr, "local.steps": 2, "local.batch_size": 0}
    trained = smooth.train(strategy, settings, rounds=5, engine=engine)
    visits = [[k for _, number, k in trained.answered if number == t] for t in range(1, 6)]

    top = smooth.loss.initial()
    own, weights, silent = [top] * 3, [0] * 3, 0
    for t, chosen in enumerate(visits, 1):
        replies: list[list[tuple[int, Any]]] = [[], [], []]
        for k in chosen:
            rows = torch.as_tensor(smooth.partition.client(k))
            batch = batch_of(smooth.loss.task.train["x"][rows], smooth.loss.task.train["y"][rows])
            edge = Levels.parse(3, 2).edge_of(1, k)
            model = own[edge]
            for _ in range(2):
                model = tree.add(model, smooth.loss.gradient(model, batch)[0], -lr)
            replies[edge].append((len(rows), model))
        for edge, got in enumerate(replies):
            if n := sum(m for m, _ in got):
                own[edge] = {name: sum(m * x[name] for m, x in got) / n for name in top}
                weights[edge] += n
        active = [edge for edge in range(3) if weights[edge]]
        mean = {name: sum(weights[e] * own[e][name] for e in active) / sum(weights) for name in top}
        if t % 2 == 0:
            silent += 3 - len(active)
            own, weights = [mean] * 3, [0] * 3
    assert silent  # an edge that no client answered for weighed nothing
    for name, value in mean.items():
        torch.testing.assert_close(trained.model[name], value, rtol=0, atol=1e-12)


def test_statistics_and_counters_are_means_whatever_the_pool(federation: Any) -> None:
    x = torch.randn(12, 3, generator=torch.Generator().manual_seed(0)).double().numpy()
    clients = [(x[i : i + 4], [0, 1, 0, 1]) for i in (0, 4, 8)]
    module = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 2))
    three = federation(module, clients, outputs=2)
    steps = {"local.lr": 0.1, "local.steps": 2, "local.batch_size": 0}
    for plain, reduction in ((FedAvg(), "mean"), (MaxPool(), "max")):
        ours = Hierarchical(edges=2, every=1, reduction=reduction, above=reduction)  # type: ignore[arg-type]
        models = [three.train(strategy, steps, rounds=2).model for strategy in (plain, ours)]
        assert models[1]["1.num_batches_tracked"].item() == 4
        for name, value in models[0].items():
            assert models[1][name].dtype == value.dtype
            torch.testing.assert_close(models[1][name], value, rtol=0, atol=1e-12)


def test_edges_reduce_by_any_pool_and_levels_above_by_another(quadratics: Any) -> None:
    # Edge 0: clients 1, 2, 4; edge 1: clients 0, 3, 5. Replies m / 2 with minima as below; medians 3 and 10. Both edges
    # have three samples; the smaller of the two medians is 3. With deltas from w = 0 nothing changes.
    assert [Levels.parse(2, 1).edge_of(0, client) for client in range(6)] == [1, 0, 0, 1, 0, 1]
    federation = quadratics([(1, 20), (1, -4), (1, 6), (1, -90), (1, 90), (1, 22)])
    for of in ("weights", "deltas"):
        for above, expected in (("mean", (3 + 10) / 2), ("min", 3)):
            strategy = Hierarchical(edges=2, every=1, reduction="median", above=above, of=of)  # type: ignore[arg-type]
            trained = federation.train(strategy, HALFWAY, rounds=1)
            assert float(trained.model["w"]) == pytest.approx(expected, rel=1e-15)


def settings(out: Path, **more: Any) -> dict[str, Any]:
    """Settings of a run of four clients in a tiny world."""
    world = {"task": f"{WORLD}:tiny", "partition": "natural", "model": f"{WORLD}:linear", "engine": "vmap"}
    return {**world, "strategy": "hierarchical", "rounds": 5, "cohort": 3, "out": str(out), **more}


def test_a_run_that_goes_on_between_two_poolings_has_the_same_bits(tmp_path: Path) -> None:
    levels = {"strategy.edges": "3,2", "strategy.every": "2,2", "checkpoint_every": 1, "checkpoint_keep": 0}
    whole, _ = execute(build(make(**settings(tmp_path, **levels))), quiet=True)
    [folder] = tmp_path.iterdir()
    again, _ = execute(build(make(**settings(tmp_path / "again", **levels, fork=f"{folder}@3"))), quiet=True)
    assert again["digest"] == whole["digest"]
    rows = [load(summary["run_dir"]).rounds[["round", *COLUMNS]] for summary in (whole, again)]
    assert rows[0].to_numpy().tolist()[4:] == rows[1].to_numpy().tolist()[1:]


def test_more_edges_than_clients_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="clients: only 4 train, .* needs 5 clients that train"):
        build(make(**settings(tmp_path, **{"strategy.edges": 5})))
    with pytest.raises(ValueError, match=r"strategy.edges = '2,3'"):
        build(make(**settings(tmp_path, **{"strategy.edges": "2,3", "strategy.every": "1,1"})))
