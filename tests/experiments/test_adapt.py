"""The command ``adapt``, and the recipe of the founding text against its formulas in plain PyTorch."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from experiments.adapt.__main__ import main
from experiments.config.recipe_files import make
from experiments.run import Outcome, from_arrays, run
from experiments.runs.setup import build

SMALL: dict[str, Any] = {"rounds": 1, "clients": 6, "holdout_clients": 2, "dtype": "float64"}


@pytest.fixture(scope="module")
def founding(tmp_path_factory: pytest.TempPathFactory) -> Outcome:
    out = str(tmp_path_factory.mktemp("founding"))
    outcome = run(recipe="founding-meta", **SMALL, personalize_steps=1, out=out)
    assert isinstance(outcome, Outcome)
    return outcome


def logits(model: dict[str, Tensor], x: Tensor) -> Tensor:
    (w1, b1, w2, b2) = model.values()
    return torch.relu(x.flatten(1) @ w1.T + b1) @ w2.T + b2


def trained(model: dict[str, Tensor], x: Tensor, y: Tensor, steps: int, lr: float) -> dict[str, Tensor]:
    for _ in range(steps):
        leaves = {k: v.clone().requires_grad_() for k, v in model.items()}
        slopes = torch.autograd.grad(cross_entropy(logits(leaves, x), y), list(leaves.values()))
        model = {k: v - lr * g for (k, v), g in zip(model.items(), slopes, strict=True)}
    return model


def test_founding_meta_is_the_founding_text_s_formulas(founding: Outcome) -> None:
    """theta_k = theta - alpha grad L(theta; D_k), five times; theta* = mean theta_k; then one step of a new node."""
    setup = build(make("founding-meta", **SMALL, personalize_steps=1))
    alpha, beta = setup.config.local.lr, setup.config.personalize_lr
    x, y = setup.task.train["x"].double(), setup.task.train["y"]
    theta = setup.loss.initial()
    assert [tuple(v.shape) for v in theta.values()] == [(128, 64), (128,), (10, 128), (10,)]
    rows = [torch.from_numpy(setup.partition.client(c)) for c in range(6)]
    nodes = [trained(theta, x[own], y[own], 5, alpha) for own in rows[:4]]
    star = {k: torch.stack([node[k] for node in nodes]).mean(0) for k in theta}
    for k, v in star.items():
        torch.testing.assert_close(founding.model[k], v, rtol=1e-10, atol=1e-12)
    losses = []
    for c, own in ((4, rows[4]), (5, rows[5])):
        new, held = own[: setup.partition.sizes(c)[0]], own[setup.partition.sizes(c)[0] :]
        losses.append(float(cross_entropy(logits(trained(star, x[new], y[new], 1, beta), x[held]), y[held])))
    assert founding.summary["unseen_loss"] == pytest.approx(np.mean(losses), rel=1e-10)


def test_it_adapts_to_the_clients_that_never_trained(founding: Outcome, capsys: pytest.CaptureFixture[str]) -> None:
    folder = Path(founding.summary["run_dir"])
    assert main([str(folder), "--shots", "1,3", "--steps", "0..2", "--lr", "0.1", "--json"]) == 0
    table = pd.read_csv(folder / "adapt.csv")
    assert table[["shots", "steps"]].to_numpy().tolist() == [[s, t] for s in (1, 3) for t in (0, 1, 2)]
    assert (table["episodes"] == 2).all() and table["support"].iloc[0] < table["support"].iloc[3]
    assert table["query"].nunique() == 1 and table["loss"].iloc[0] == table["loss"].iloc[3]  # 0 steps: one model
    assert (folder / "adapt.png").stat().st_size > 5000
    facts = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert len(facts["rows"]) == 6 and facts["tasks"] == "2 clients that never trained"


def test_it_adapts_to_a_folder_of_pictures(founding: Outcome, tmp_path: Path) -> None:
    from PIL import Image

    for name, value in (("dark", 0), ("light", 255)):
        (tmp_path / name).mkdir()
        for i in range(4):
            Image.new("L", (12, 12), color=abs(value - i)).save(tmp_path / name / f"{i}.png")
    folder = Path(founding.summary["run_dir"])
    words = ["--task", "folder", "--task.path", str(tmp_path), "--shots", "2", "--steps", "0,20", "--lr", "0.3"]
    assert main([str(folder), *words, "--episodes", "3", "--quiet"]) == 0
    table = pd.read_csv(folder / "adapt.csv")
    assert table["support"].tolist() == [4, 4] and table["accuracy"].iloc[1] == 1.0


@pytest.mark.parametrize(
    "words, message",
    [
        (["--steps", "a"], "steps = 'a': must be whole numbers"),
        (["--shots", "0"], "shots = '0': must be 1 or more"),
        (["--lr", "-1"], "lr = -1: must be a number above 0"),
        (["--episodes", "0"], "episodes = 0: must be at least 1"),
        (["--task.size", "3"], "flags of a task need --task NAME"),
        (["--task", "digits"], "the run trained on its samples"),
        (["--task", "breast-cancer"], r"has samples of shape \(30,\), the run's network takes \(1, 8, 8\)"),
        (["--task", "none"], "task.name = 'none': unknown"),
        (["--bad"], "flags of a task need --task NAME"),
    ],
)
def test_bad_input_exits_2(words: list[str], message: str, founding: Outcome, capsys: Any) -> None:
    assert main([str(founding.summary["run_dir"]), *words]) == 2
    assert pd.Series(capsys.readouterr().err).str.contains(message).all()


def test_a_run_without_unseen_clients_needs_a_task(tmp_path: Path, capsys: Any) -> None:
    assert main([str(tmp_path)]) == 2 and "is not the folder of a run" in capsys.readouterr().err
    x = np.linspace(-1, 1, 24).reshape(12, 2)
    task = from_arrays(x, np.arange(12) % 2, x_test=x[:2], y_test=[0, 1])
    made = run(task=task, clients=3, rounds=1, out=str(tmp_path))
    assert isinstance(made, Outcome)
    assert main([str(made.summary["run_dir"])]) == 2 and "cannot be rebuilt" in capsys.readouterr().err
    made = run(task="digits", model="lr", clients=3, rounds=1, out=str(tmp_path))
    assert main([str(made.summary["run_dir"])]) == 2
    assert "the run has no clients that never trained (holdout_clients = 0); give --task" in capsys.readouterr().err


def test_learned_rates_come_from_the_last_checkpoint(tmp_path: Path, capsys: Any) -> None:
    more: dict[str, Any] = {"partition.held_out": 0.3, "personalize_steps": 1, "out": str(tmp_path)}
    made = run(task="digits", strategy="metasgd", model="lr", rounds=2, clients=4, holdout_clients=1, **more)
    assert isinstance(made, Outcome)
    folder = Path(made.summary["run_dir"])
    assert main([str(folder), "--shots", "1", "--steps", "0,1", "--quiet"]) == 0
    assert main([str(folder), "--lr", "0.1"]) == 2
    assert "lr = 0.1: metasgd adapts with rates of its own" in capsys.readouterr().err
    for file in (folder / "checkpoints").iterdir():
        file.unlink()
    assert main([str(folder), "--quiet"]) == 2
    assert "there is no checkpoint of the last round that holds it" in capsys.readouterr().err
