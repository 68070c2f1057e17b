"""One experiment on three backends gives one result.

They are SimulationGrid on each engine, Flower's own simulation, and real processes over TLS with node keys.
"""

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from clients.app import app
from experiments.check.same_digests import last_of_each
from experiments.config.choices import offered
from experiments.deploy.flower_simulation import run_through_flower
from experiments.deploy.server_app import ServeOptions, parse_configs, serve
from tests.conformance.conftest import NEEDS, NORMED, SMALL, STRATEGIES, VALIDATED, check_same, rows, simulated
from tests.conformance.in_process import InProcessGrid

PERSONAL = ["--partition.held_out", "0.2", "--personalize_steps", "2"]


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_devices_answer_as_the_simulation_does(strategy: str, out: list[str]) -> None:
    """Five clients in blocks of two, one of them held out, with personal evaluation, and no network between them."""
    more = ["--clients", "5", "--holdout_clients", "1", "--cohort", "3", "--block_size", "2", *PERSONAL]
    [config] = parse_configs([*SMALL, "--strategy", strategy, *NEEDS.get(strategy, ()), *more, *out])
    grid = InProcessGrid.of(app, 5)
    [(summary, error)] = serve([config], grid, ServeOptions(node_timeout_s=5))
    assert error is None
    check_same(summary, simulated(config))
    assert [kind for _, kind in grid.asked].count("query") == 5  # one for each node


def test_a_strategy_of_flowers_and_a_state_on_each_device_too(out: list[str]) -> None:
    words = [
        last_of_each([*SMALL, "--strategy", name, "--rounds", "3", *out])
        for name in ("flwr.serverapp.strategy:FedAdam", "tests.conformance.stateful:Remembers")
    ]
    configs = [config for each in words for config in parse_configs(each)]
    for config, (summary, error) in zip(configs, serve(configs, InProcessGrid.of(app, 3), ServeOptions()), strict=True):
        assert error is None
        check_same(summary, simulated(config))


@pytest.mark.parametrize("codec", sorted(set(offered("codec")) - {"none"}))
def test_a_codec_gives_the_same_model_and_bytes_on_devices(codec: str, out: list[str]) -> None:
    """For an algorithm with trees beside the model, one of which is coded too."""
    one_step = ["--local.steps", "1"]  # dgc is for plain training of one step
    more = one_step if codec == "dgc" else ["--strategy", "scaffold", "--codec.trees", "control"]
    more = [*more, "--codec", codec, "--rounds", "3", *out]
    [config] = parse_configs(last_of_each([*SMALL, *more]))
    [(summary, error)] = serve([config], InProcessGrid.of(app, 3), ServeOptions())
    assert error is None
    check_same(summary, simulated(config))


@pytest.mark.parametrize(
    "more", [["--dtype", "float64"], ["--standardize", "true", "--validation", "0.1"], ["--model", "cnn-gn"]]
)
def test_settings_reach_the_devices(more: list[str], out: list[str]) -> None:
    [config] = parse_configs([*SMALL, *more, *out])
    [(summary, error)] = serve([config], InProcessGrid.of(app, 3), ServeOptions())
    assert error is None
    check_same(summary, simulated(config))


@pytest.mark.parametrize("strategy", ["maxpool", "fedbn"])
def test_running_statistics_are_the_clients_mean_or_stay_with_them_on_devices_too(
    strategy: str, out: list[str]
) -> None:
    """With passes whose last sample joins the batch before it."""
    model = ["--model", "tests.fl_sim.small_federation:normed", "--local.last_batch", "join", "--rounds", "1"]
    [config] = parse_configs(last_of_each([*SMALL, *PERSONAL, *model, "--strategy", strategy, *out]))
    [(summary, error)] = serve([config], InProcessGrid.of(app, 3), ServeOptions())
    assert error is None
    check_same(summary, simulated(config))


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_the_batched_engine_agrees_to_rounding(strategy: str, out: list[str]) -> None:
    [config] = parse_configs([*SMALL, "--strategy", strategy, *NEEDS.get(strategy, ()), *out])
    models = [
        load_file(Path(simulated(replace(config, engine=engine))["run_dir"]) / "model.safetensors")
        for engine in ("loop", "vmap")
    ]
    for name, value in models[0].items():
        torch.testing.assert_close(models[1][name], value, rtol=1e-4, atol=1e-5)


@pytest.mark.slow
def test_flowers_own_simulation_agrees(out: list[str]) -> None:
    """All strategies on one simulation of Flower's."""
    configs = parse_configs([*SMALL, *PERSONAL, *NORMED, *VALIDATED, "--strategy", ",".join(STRATEGIES), *out])
    for config, (summary, error) in zip(configs, run_through_flower(configs), strict=True):
        assert error is None
        check_same(summary, simulated(config))


@pytest.mark.faults
def test_a_real_deployment_agrees(tmp_path: Path) -> None:
    """All strategies, one after another, on one SuperLink and two SuperNodes with TLS and node keys.

    Two and a half minutes, mostly waiting: ``make test-faults`` runs it. ``make test-all`` compares one strategy on
    devices, by the README's ``python -m experiments.backends`` (tests/test_docs.py).
    """
    words = [*SMALL[1:], *NORMED, *VALIDATED, "--clients", "2", "--strategy", ",".join(STRATEGIES)]
    up = ["up", "--nodes", "2", "--tls", "--auth", "--recipe", SMALL[0]]
    command = [sys.executable, "-m", "experiments.deploy", *up, *words]
    done = subprocess.run(
        [*command, "--out", str(tmp_path / "real")], capture_output=True, text=True, timeout=900, env={**os.environ}
    )
    print(done.stdout)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "all processes of this deployment have ended" in done.stdout
    files = sorted((tmp_path / "real").glob("*/summary.json"), key=lambda file: file.stat().st_mtime)
    configs = parse_configs([SMALL[0], *words, "--out", str(tmp_path / "simulated")])
    for config, file in zip(configs, files, strict=True):
        summary = json.loads(file.read_text())
        assert rows(summary, "rounds")[-1]["round"] == 2
        check_same(summary, simulated(config))
