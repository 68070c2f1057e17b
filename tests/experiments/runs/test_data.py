"""A task that is kept for the next run is the one that was given, whatever objects come and go."""

import gc
import weakref

import numpy as np
import pytest

from experiments.config.recipe_files import make
from experiments.runs.data import data
from experiments.runs.setup import build
from fl_sim.errors import ConfigError
from fl_sim.learning.arrays import from_arrays


def test_a_kept_task_shares_its_identity_with_no_later_one() -> None:
    task = from_arrays(np.eye(4, dtype=np.float32), np.arange(4) % 2)
    kept = weakref.ref(task)
    data(make(task=task, model="lr", clients=2))
    del task
    gc.collect()
    assert kept() is not None


def test_a_client_that_is_too_small_for_support_and_query_is_refused_before_the_run() -> None:
    task = from_arrays(np.eye(9, 4, dtype=np.float32), np.arange(9) % 2)
    words = {"task": task, "model": "lr", "clients": 2, "strategy": "maml"}
    few = {**words, "strategy.support_size": 3, "strategy.query_size": 2}
    why = (
        r"strategy.support_size = 3, strategy.query_size = 2: a client needs 5 training samples, and the smallest has 4"
    )
    with pytest.raises(ConfigError, match=why):
        build(make(**few))
    assert build(make(**{**few, "strategy.query_size": 1})).strategy.parameters()["query_size"] == 1


def test_clients_that_never_train_may_hold_out_a_share_of_their_own() -> None:
    task = from_arrays(np.eye(50, 4, dtype=np.float32), np.arange(50) % 2)
    words = {"task": task, "model": "lr", "clients": 4, "holdout_clients": 1, "personalize_steps": 1}
    setup = build(make(**words, **{"partition.unseen_held_out": 0.8}))
    assert [setup.partition.sizes(c) for c in range(4)] == [(10, 0), (10, 0), (10, 0), (2, 8)]
    assert setup.evaluate_config["personalize.seen"] is False
    asked = list(setup.strategy.configure_evaluate(10, setup.initial, setup.evaluate_config, setup.grid))
    assert [setup.grid.client_of(message.metadata.dst_node_id) for message in asked] == [3]
    other = build(make(**{**words, "holdout_clients": 2, "partition.unseen_held_out": 0.8}))  # not the kept data
    assert [other.partition.sizes(c) for c in range(4)] == [(10, 0), (10, 0), (2, 8), (2, 8)]
    both = build(make(**words, **{"partition.unseen_held_out": 0.8, "partition.held_out": 0.2}))
    assert [both.partition.sizes(c) for c in range(4)] == [(8, 2), (8, 2), (8, 2), (2, 8)]
    assert "personalize.seen" not in both.evaluate_config


def test_the_mean_of_standardize_follows_the_number_of_clients_that_never_train() -> None:
    """Clients 0..3 own the values 0, 1, 2, 3 ten times each: the mean is .5 where two train, 1 where three do."""
    x = np.repeat(np.arange(4, dtype=np.float32), 10)[:, None]
    y = np.arange(40) % 2
    task = from_arrays(x, y, clients=np.repeat(np.arange(4), 10), x_test=x, y_test=y)
    words = {"task": task, "model": "lr", "partition": "natural", "standardize": True}
    for out, mean in ((2, 0.5), (1, 1.0), (2, 0.5)):
        prepared, _, _ = data(make(**words, holdout_clients=out))
        assert float(prepared.transform.mean) == pytest.approx(mean)
