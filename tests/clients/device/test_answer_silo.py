"""A device whose training runs on two processes: the digest of the simulation; refused where the run has no silo."""

from pathlib import Path
from typing import Any

import pytest

from clients.app import app
from clients.device import answer
from experiments.config.recipe_files import make
from experiments.deploy.server_app import ServeOptions, deployable, serve
from experiments.runs.execute import execute
from experiments.runs.resume import ready
from fl_sim.errors import ConfigError
from tests.conformance.in_process import InProcessGrid
from tests.experiments.config.tiny_world import NAMES


def given(out: Path, **more: Any) -> dict[str, Any]:
    world = {"task": f"{NAMES}:tiny", "model": f"{NAMES}:two_layers", "partition": "natural", "rounds": 2}
    return {**world, "dtype": "float64", "local.batch_size": 5, "out": str(out), **more}


def on_devices(out: Path, **more: Any) -> tuple[Any, BaseException | None]:
    """A run on four devices of two processes each."""
    grid = InProcessGrid.of(app, 4, **{"state-dir": str(out), "silo-processes": 2})
    [result] = serve([deployable(make(**given(out, **more)))], grid, ServeOptions(node_timeout_s=5.0))
    return result


def test_devices_with_processes_of_their_own_have_the_simulations_digest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(answer, "probe", lambda *_: None)
    silo = {"silo.processes": 1, "silo.shards": 3}
    summary, error = on_devices(tmp_path, **silo)
    simulated, _ = execute(ready(make(**given(tmp_path, **silo))), quiet=True)
    assert error is None and summary["digest"] == simulated["digest"]


def test_a_device_with_processes_refuses_a_run_without_shards() -> None:
    with pytest.raises(ValueError, match="silo-processes = 2: the experiment has no silo"):
        answer.silo_of({}, {"silo-processes": 2})
    with pytest.raises(ConfigError, match="silo.processes = 5: each process needs a shard"):
        answer.silo_of({"silo-shards": 4}, {"silo-processes": 5})
    assert answer.silo_of({}, {}).processes == 0 and answer.silo_of({"silo-shards": 4}, {}).processes == 1
