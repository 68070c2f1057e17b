"""Forks of simulations as deployments, and of deployments as simulations: what states of clients do not allow."""

from pathlib import Path
from typing import Any

import pytest

from clients.app import app
from experiments.config.recipe_files import make
from experiments.deploy.server_app import ServeOptions, deployable, serve
from experiments.runs.resume import ready
from fl_sim import load
from fl_sim.errors import ConfigError
from tests.conformance.in_process import InProcessGrid
from tests.experiments.config.setting_walks import WORLD, folder_of, settings

KEEPS = f"{WORLD}:Keeps"


def given(out: Path, **more: Any) -> dict[str, Any]:
    world = settings("", (None,), False, out, checkpoint_every=1, checkpoint_keep=0)
    return {**world, "engine": "auto", "strategy": "fedavg", **more}


def served(out: Path, **more: Any) -> Path:
    """The folder of a run on four devices in this process. Raises the error of a run that failed."""
    grid = InProcessGrid.of(app, 4, **{"state-dir": str(out)})
    [(summary, error)] = serve([deployable(make(**given(out, **more)))], grid, ServeOptions(node_timeout_s=5.0))
    if error is not None:
        raise error
    return Path(summary["run_dir"])


def digests(folder: Path) -> list[str]:
    return list(load(folder).rounds["digest"])


def test_a_fork_without_states_is_the_same_on_devices(tmp_path: Path) -> None:
    """Of a simulation and of a deployment, each forked as both: four times the rounds of a run that went on."""
    whole = folder_of(given(tmp_path, rounds=2, engine="loop"))
    for name, parent in (("simulated", folder_of(given(tmp_path, engine="loop"))), ("served", served(tmp_path))):
        own = {"rounds": 2, "fork": f"{parent}@1"}
        simulated = folder_of(given(tmp_path, **{**own, "engine": "loop"}))
        for kind, fork in (("served", served(tmp_path, **own)), ("simulated", simulated)):
            assert digests(fork) == digests(whole)[1:], f"{kind} fork of the {name} run"
    assert digests(served(tmp_path, **own, **{"server.lr": 0.5})) != digests(whole)[1:]


def test_what_only_the_data_show_to_do_nothing_is_refused_on_devices_too(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="system.stragglers = 0.01: of 4 clients a round that is none"):
        served(tmp_path, **{"system.stragglers": 0.01})
    assert not list(tmp_path.glob("*/rounds.jsonl"))


def test_states_of_a_simulation_are_on_no_device(tmp_path: Path) -> None:
    parent = folder_of(given(tmp_path / "parent", strategy=KEEPS, engine="loop"))
    own = {"strategy": KEEPS, "rounds": 2, "fork": f"{parent}@1"}
    with pytest.raises(ConfigError, match="fork = .*: 4 clients have states, which cannot be sent to devices"):
        served(tmp_path / "fork", **own)
    assert not (tmp_path / "fork").exists()
    fresh = served(tmp_path / "fork", **own, **{"strategy.beta": 0.2})
    assert digests(fresh) == digests(folder_of(given(tmp_path, **own, engine="loop", **{"strategy.beta": 0.2})))


def test_states_of_a_deployment_are_on_its_devices(tmp_path: Path) -> None:
    parent = served(tmp_path / "parent", strategy=KEEPS)
    own = {"strategy": KEEPS, "rounds": 2, "fork": f"{parent}@1"}
    why = "fork = .*: the run was a deployment, whose clients keep their states on their devices"
    with pytest.raises(ConfigError, match=why):
        ready(make(**given(tmp_path / "fork", **own)))
    with pytest.raises(ConfigError, match=why):
        served(tmp_path / "fork", **own)
    assert not (tmp_path / "fork").exists()
    assert len(digests(served(tmp_path / "fork", **own, **{"strategy.beta": 0.2}))) == 2
