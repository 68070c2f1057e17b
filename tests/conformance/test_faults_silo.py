"""Two real SuperNodes, each a silo of two processes, over TLS with node keys: the digest of the simulation."""

import json
from pathlib import Path
from typing import Any

import pytest

from experiments.config.recipe_files import make
from experiments.deploy.__main__ import main
from experiments.runs.execute import execute
from experiments.runs.resume import ready


@pytest.mark.faults
def test_two_supernodes_of_two_processes_each_have_the_simulations_digest(tmp_path: Path) -> None:
    given = ["--rounds", "2", "--silo.processes", "1", "--out", str(tmp_path / "deployed")]
    words = ["up", "--nodes", "2", "--tls", "--auth", "--silo_processes", "2", "--node_timeout_s", "600"]
    assert main([*words, "--recipe", "digits-deploy", *given]) == 0
    [summary] = (tmp_path / "deployed").glob("*/summary.json")
    config = make("digits-deploy", clients=2, rounds=2, out=str(tmp_path / "here"), **{"silo.processes": 2})
    simulated, _ = execute(ready(config), quiet=True)
    assert json.loads(summary.read_text())["digest"] == simulated["digest"]


@pytest.mark.faults
def test_silos_in_rays_workers_have_the_bits_of_one_process(tmp_path: Path) -> None:
    """New processes are started there, and none is forked."""
    small: dict[str, Any] = {"clients": 3, "rounds": 1, "local.epochs": 1, "out": str(tmp_path)}
    kinds: list[dict[str, Any]] = [{"silo.processes": 1}, {"silo.processes": 2, "engine": "ray", "ray.num_workers": 1}]
    found = [execute(ready(make(**{**small, **kind})), quiet=True)[0] for kind in kinds]
    assert found[0]["digest"] == found[1]["digest"] and found[1]["status"] == "completed"
