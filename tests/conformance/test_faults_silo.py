"""Two real SuperNodes, each a silo of two processes, over TLS with node keys: the digest of the simulation."""

import json
from pathlib import Path

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
