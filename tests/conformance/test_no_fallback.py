"""No shipped recipe and no task of real data falls back on another engine: one tiny round each, on files of noise."""

import json
import tomllib
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from safetensors.torch import load_file

from clients.app import app
from experiments.config.command_line import parse
from experiments.deploy.server_app import ServeOptions, parse_configs, serve
from experiments.runs.execute import execute
from experiments.runs.resume import ready
from experiments.runs.summary import Summary
from tests.clients.conftest import Fakes
from tests.conformance.conftest import check_same, simulated
from tests.conformance.in_process import InProcessGrid

RECIPES = sorted(Path(__file__).parents[2].joinpath("experiments", "recipes").glob("*.toml"))
MOST = {"clients": 4, "holdout_clients": 1, "cohort": 2, "personalize_clients": 1, "personalize_steps": 2}
"""Numbers of a recipe that are larger are these instead."""
OWN = {
    "omniglot": {"model.width": 4, "task.queries": 3, "partition.unseen_held_out": 0.75},
    "cifar10-noniid": {"model": "cnn-gn"},
    "cifar10-strategies": {"partition.min_samples": 2},
    "fedprox-synthetic": {"local.epochs": 1},
    "hierarchical": {"strategy.edges": 2},
    "million-clients": {"partition.samples_per_client": 5},
}
"""Beginning of a recipe's name -> what makes it small besides."""
TASKS: dict[str, dict[str, Any]] = {
    "cifar10": {"partition": "labels", "partition.labels_per_client": 2, "clients": 10, "cohort": 2},
    "shakespeare": {"task.length": 6, "partition": "natural", "model": "char-lstm", "model.hidden": 4, "clients": 4},
    "breast-cancer": {"model": "mlp", "model.hidden": 4, "clients": 4},
    "folder": {"task.size": 8, "model": "mlp", "model.hidden": 4, "clients": 4},
}


def flags(settings: dict[str, Any]) -> list[str]:
    return [word for name, value in settings.items() for word in (f"--{name}", str(value))]


@pytest.fixture(scope="module")
def noise(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with all data that recipes read, and a user's own pictures in ``own``."""
    folder, fakes = tmp_path_factory.mktemp("noise"), Fakes()
    for split, n in (("train", 60), ("test", 10)):
        labels = [i % 10 for i in range(n)]
        fakes.parquet(folder / "cifar10" / f"{split}.parquet", fakes.pictures(n, 32, 32, 3), labels)
        fakes.parquet(folder / "mnist" / f"{split}.parquet", fakes.pictures(n, 28, 28), labels, column="image")
    for name in ("cat", "dog"):
        (folder / "own" / name).mkdir(parents=True)
        for i, picture in enumerate(fakes.pictures(6, 8, 8, 3)):
            (folder / "own" / name / f"{i}.png").write_bytes(fakes.png(picture))
    np.savez(folder / "mnist" / "writers.npz", train=np.arange(60) % 6)
    speeches = {
        "client_id": ["p/A", "p/B", "p/C", "p/D"],
        "text": ["To be, or not " * 9, "to" * 40, "be " * 30, "x " * 50],
    }
    pq.write_table(pa.table(speeches), folder / "shakespeare.parquet")
    alphabet = np.arange(40) // 10
    images = fakes.pictures(40 * 20, 28, 28).reshape(40, 20, 28, 28)
    np.savez(folder / "omniglot.npz", images=images, alphabet=alphabet, background=alphabet < 3)
    return folder


def events(summary: Summary) -> set[str]:
    lines = (Path(summary["run_dir"]) / "events.jsonl").read_text().splitlines()
    return {json.loads(line)["event"] for line in lines}


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda file: file.stem)
def test_no_recipe_falls_back(recipe: Path, noise: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FL_SIM_DATA", str(noise))
    settings = tomllib.loads(recipe.read_text(encoding="utf-8"))
    small: dict[str, Any] = {"rounds": 1, "out": tmp_path}
    small |= {name: most for name, most in MOST.items() if settings.get(name, 0) > most}
    for beginning, own in OWN.items():
        small |= own if recipe.stem.startswith(beginning) else {}
    config = parse([recipe.stem, *flags(small)]).configs[0]  # every strategy on every engine: test_backends
    summary, error = execute(ready(config), quiet=True)
    assert error is None and summary["status"] == "completed"
    assert not events(summary) & {"fallback", "failure", "not_finite"}


@pytest.mark.parametrize("task", TASKS)
def test_a_task_trains_under_vmap_the_loop_and_on_devices(
    task: str, noise: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FL_SIM_DATA", str(noise))
    small = {"task": task, **TASKS[task], "rounds": 1, "local.batch_size": 4, "engine": "loop", "out": tmp_path}
    small |= {"task.path": noise / "own"} if task == "folder" else {}
    [config] = parse_configs(flags(small))
    loop, vmap = (simulated(replace(config, engine=engine)) for engine in ("loop", "vmap"))  # type: ignore[arg-type]
    assert (loop["engine"], vmap["engine"]) == ("loop", "vmap") and "fallback" not in events(loop) | events(vmap)
    one, other = (load_file(Path(summary["run_dir"]) / "model.safetensors") for summary in (loop, vmap))
    for name, value in one.items():
        torch.testing.assert_close(other[name], value, rtol=1e-3, atol=1e-5)
    clients = config.num_clients
    assert clients is not None
    [(served, error)] = serve([config], InProcessGrid.of(app, clients), ServeOptions(node_timeout_s=2))
    assert error is None and "fallback" not in events(served)
    check_same(served, loop)


def test_devices_judge_each_query_alone_as_the_simulation_does(
    noise: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FL_SIM_DATA", str(noise))
    small = {"task": "omniglot", "task.queries": 3, "partition": "natural", "partition.held_out": 0.75, "clients": 3}
    small |= {"model.width": 4, "holdout_clients": 1, "rounds": 1, "personalize_steps": 1, "out": tmp_path}
    [config] = parse_configs(flags({**small, "personalize_queries": "alone"}))
    [(served, error)] = serve([config], InProcessGrid.of(app, 3), ServeOptions(node_timeout_s=2))
    assert error is None and served["personal_queries"] == "alone" and served["unseen_accuracy"] is not None
    check_same(served, simulated(config))
