"""Names of classes and clients in the run folder; clients that lose all their samples to a split."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from experiments.config.recipe_files import make
from experiments.deploy.server_app import check_samples
from experiments.run import Outcome, run
from experiments.runs.data import data
from experiments.runs.plan import describe, first_round_plans
from experiments.runs.setup import Setup, build
from fl_sim import Task, from_arrays, rng
from fl_sim.errors import ConfigError
from strategies.base.strategy import Strategy

N = 40
X = np.linspace(-1.0, 1.0, N * 2).reshape(N, 2)
HELD = rng.permutation(rng.key(0, "test-share"), N)[: N // 5]
"""Rows that ``from_arrays`` takes as test samples."""
SITES = np.array(["alpha"] * 16 + ["gamma"] * 12 + ["zeta"] * 12, dtype=object)
SITES[HELD[0]] = "beta"  # its only sample is a test sample


def task(**options: Any) -> Task:
    """Two classes by name on four sites, one of which has no training sample."""
    return from_arrays(X, np.where(X[:, 0] > 0, "yes", "no"), **{"clients": SITES, **options})


def go(folder: Path, **settings: Any) -> Outcome:
    """One run of one round."""
    return run(**{"task": task(), "model": "lr", "rounds": 1, "out": str(folder), **settings})


def setup(**settings: Any) -> Setup:
    """What a run would be."""
    return build(make(None, **{"task": task(), "model": "lr", "partition": "natural", **settings}))


def test_a_site_without_training_samples_keeps_its_id_and_is_told_of(tmp_path: Path) -> None:
    log = go(tmp_path, rounds=3, cohort=2).log
    chosen = log.clients.groupby("round").client.apply(list).tolist()
    assert all(len(set(clients)) == 2 and set(clients) <= {0, 2, 3} for clients in chosen)
    assert len({c for clients in chosen for c in clients}) == 3
    own = {"alpha": 16, "gamma": 12, "zeta": 12}
    sizes = {name: sum(SITES[i] == name for i in range(N) if i not in HELD) for name in own}
    assert {(row.client, row.client_name, row.examples) for row in log.clients.itertuples()} == {
        (0, "alpha", sizes["alpha"]),
        (2, "gamma", sizes["gamma"]),
        (3, "zeta", sizes["zeta"]),
    }
    assert log.names == {"classes": ["no", "yes"], "clients": ["alpha", "beta", "gamma", "zeta"]}
    [lost] = log.events[log.events.event == "clients_lost"].itertuples()
    assert (lost.clients, lost.names) == ([1], ["beta"])
    [told] = log.events[log.events.event == "samples"].note
    assert told == "y holds 2 classes, which are encoded: 'no' -> 0, 'yes' -> 1"


def test_the_other_sites_own_their_training_samples() -> None:
    found = setup()
    listed = [found.partition.client(c).tolist() for c in range(4)]
    kept = np.sort(np.setdiff1d(np.arange(N), HELD))
    assert listed == [np.flatnonzero(SITES[kept] == name).tolist() for name in ("alpha", "beta", "gamma", "zeta")]
    tried = [order.client for plan in first_round_plans(found) for order in plan.orders]
    assert sorted(tried) == [0, 2, 3] and isinstance(found.strategy, Strategy) and found.strategy.cohort == 3
    facts = describe(found)
    assert (facts["clients"], facts["cohort"], facts["samples_min"]) == (4, 3, min(map(len, filter(None, listed))))


def test_ids_do_not_shift_when_validation_takes_a_clients_samples() -> None:
    ids = np.arange(N)  # every client has one sample, so that validation takes whole clients
    found, held, partition = data(
        make(None, task=task(clients=ids, test_share=0.0), partition="natural", validation=0.25)
    )
    assert len(held["y"]) == 10 and len(partition) == N and len(partition.idle) == 10
    assert found.clients is not None
    for place, c in enumerate(found.clients.tolist()):
        assert partition.client(c).tolist() == [place]
        assert found.train["x"][place].tolist() == X[c].tolist()


def test_clients_that_never_train_and_lost_ones_are_told_apart() -> None:
    found = setup(holdout_clients=2)  # gamma and zeta
    first = found.grid.client_of(0)
    assert [n + first for n in found.grid.get_node_ids()] == [0]
    assert [n + first for n in found.grid.holdout_node_ids] == [2, 3]
    with pytest.raises(
        ConfigError, match="of 4 clients, holdout_clients = 2 never train and 1 have no training samples"
    ):
        setup(holdout_clients=2, cohort=2)


def test_groups_of_sites_are_named_by_their_members(tmp_path: Path) -> None:
    log = go(tmp_path, clients=2).log
    assert sorted(name for group in log.names["clients"] for name in group) == ["alpha", "gamma", "zeta"]
    assert log.clients.client_name.isna().all() and sorted(log.clients.client) == [0, 1]
    more = from_arrays(
        X, np.where(X[:, 0] > 0, 1, 0), clients=np.where(np.isin(np.arange(N), HELD[:2]), np.arange(N), -1)
    )
    with pytest.raises(
        ValueError, match="has 1 natural clients, and 2 without training samples; choose at most 1, or 3"
    ):
        setup(task=more, clients=2)


def test_plain_numbers_need_no_file_of_names(tmp_path: Path) -> None:
    plain = from_arrays(X, np.arange(N) % 2, clients=np.arange(N) % 4)
    log = go(tmp_path, task=plain).log
    assert log.names == {} and not (log.path / "names.json").exists() and log.clients.client_name.isna().all()
    assert go(tmp_path, partition="iid", clients=2).log.names == {"classes": ["no", "yes"]}


def test_devices_are_not_waited_for_where_a_client_has_no_sample() -> None:
    with pytest.raises(ConfigError, match="clients 1 own no training sample"):
        check_samples(setup())
    check_samples(setup(clients=3))


@pytest.mark.parametrize(
    "x, cure",
    [
        ((X * 10).astype(int), r"x holds integers \(int64\), .*for features pass x.astype\('float32'\)"),
        ((X * 10 + 20).astype(np.uint16), r"x holds integers \(int32\)"),
        (X[:, 0], r"pass x.reshape\(-1, 1\)"),
    ],
)
def test_a_model_that_cannot_take_the_inputs_names_the_cure(x: np.ndarray, cure: str) -> None:
    with pytest.raises(ConfigError, match=cure):
        setup(task=from_arrays(x, np.arange(N) % 2), partition="iid", model=torch.nn.Linear(2, 2))


def test_integers_reach_an_embedding_as_integers() -> None:
    tokens = from_arrays(np.arange(N)[:, None] % 7, np.arange(N) % 2, test_share=0.0)
    model = torch.nn.Sequential(torch.nn.Embedding(7, 2), torch.nn.Flatten())
    assert setup(task=tokens, partition="iid", model=model).task.train["x"].dtype == torch.int64


def test_a_task_of_the_users_is_checked_before_the_run() -> None:
    x, y = torch.ones(6, 2), torch.arange(6) % 2
    x[4, 1] = torch.nan
    with pytest.raises(ValueError, match="task own: train x holds NaN in row 4"):
        setup(task=Task("own", {"x": x, "y": y}, {}, 2), partition="iid", clients=2)


def test_a_class_in_a_late_row_that_the_model_has_no_output_for_is_named() -> None:
    y = np.where(np.arange(N) == 31, 2, np.arange(N) % 2)
    found = from_arrays(X, y, x_test=X, y_test=y)
    with pytest.raises(ConfigError, match="train y holds 2 in row 31, which is no class of 0..1; .* has 2 outputs"):
        setup(task=found, partition="iid", model=torch.nn.Linear(2, 2))
