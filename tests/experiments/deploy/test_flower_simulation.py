"""Runs in Flower's own simulation, without starting it: what reaches the server."""

from types import SimpleNamespace
from typing import Any

import pytest

from experiments.deploy import flower_simulation
from experiments.deploy.server_app import ServeOptions, parse_configs


def test_trust_in_a_pickle_reaches_the_server(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[bool] = []

    def simulated(server: Any, client: Any, count: int, backend_config: Any) -> None:
        server(None, SimpleNamespace(run_id=7))

    def served(configs: Any, grid: Any, options: ServeOptions) -> Any:
        told.append(options.trust_pickle)
        return [({"status": "completed"}, None)]

    monkeypatch.setattr(flower_simulation, "run_simulation", simulated)
    monkeypatch.setattr(flower_simulation, "serve", served)
    configs = parse_configs(["digits-deploy"])
    for trust in (False, True):
        assert flower_simulation.run_through_flower(configs, trust_pickle=trust) == [({"status": "completed"}, None)]
    assert told == [False, True]
