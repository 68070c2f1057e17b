"""Leaves that stay with clients: what else in a run must fit them, or is refused before the first message."""

from typing import Any

import pytest
from flwr.serverapp.strategy import DifferentialPrivacyServerSideFixedClipping

from clients.app import make_app
from fl_sim import RoundFailed, SimulationGrid, run_rounds, tree
from fl_sim.errors import ConfigError
from fl_sim.wire import records
from strategies.local_only import LocalOnly
from tests.fl_sim.small_federation import federation, network, train

SIZES, SETTINGS = [4, 9], {"local.lr": 0.1, "local.batch_size": 4, "local.last_batch": "join"}


def test_a_wrapper_for_privacy_that_pairs_arrays_by_place_is_refused() -> None:
    private = DifferentialPrivacyServerSideFixedClipping(LocalOnly(), 1.0, 1.0, 2)
    loss, partition = federation(SIZES, network())
    grid = SimulationGrid(make_app(loss, partition), 2)
    with pytest.raises(RoundFailed, match="clients of LocalOnly keep 0.weight, .* at home, and Diff.* whole models"):
        run_rounds(private, grid, records.encode(loss.initial()), 1, train_config=records.config(SETTINGS))


def test_a_run_that_begins_with_other_values_than_its_clients_is_refused() -> None:
    loss, partition = federation(SIZES, network())
    start: Any = records.encode(tree.scale(loss.initial(), 2.0))
    grid = SimulationGrid(make_app(loss, partition), 2)
    with pytest.raises(ConfigError, match="begins with has other values of 0.weight, .* than the network"):
        run_rounds(LocalOnly(), grid, start, 1, train_config=records.config(SETTINGS))
    assert train(LocalOnly(), SIZES, SETTINGS).rows[-1]["completed"] == 2


def test_a_grid_that_does_not_know_the_network_is_refused() -> None:
    loss, partition = federation(SIZES, network())
    grid = SimulationGrid(make_app(loss, partition), 2)
    grid.loss = None
    with pytest.raises(ConfigError, match="LocalOnly keeps leaves of the network at home, which the grid does not"):
        run_rounds(LocalOnly(), grid, records.encode(loss.initial()), 1, train_config=records.config(SETTINGS))
