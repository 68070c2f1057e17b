"""The study of sine waves: what it runs, how it tells recipes apart, the page."""

from pathlib import Path
from types import SimpleNamespace

import pandas as pd
import pytest

from experiments.config.recipe_files import make
from experiments.studies import sinusoid as study

FEW = ["--rounds", "2", "--evaluate_every", "2", "--clients", "24", "--holdout_clients", "4"]
NAMES = ["sinusoid-fedreptile", "sinusoid-joint"]


def test_the_command_runs_what_is_missing_and_writes_the_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(study, "RESULTS", tmp_path)
    real, calls = study.run, list[list[str]]()

    def few(words: list[str]) -> int:
        calls.append(words)
        return real([*words, *FEW, "--personalize_clients", "4"])

    monkeypatch.setattr(study, "run", few)
    monkeypatch.setattr(study, "in_turn", lambda rounds, turns: {"plain PyTorch": [(0.001 * turns, 0.002)]})
    words = ["--seed", "0", "--out", str(tmp_path / "runs"), "--recipes", ",".join(reversed(NAMES)), "--turns", "3"]
    assert study.main([*words, "--note", "A busy machine."]) == 1  # two rounds: federated Reptile has learnt nothing
    rows = pd.read_csv(tmp_path / "sinusoid.csv")
    assert rows["recipe"].tolist() == NAMES and rows["rounds"].tolist() == [2, 2]
    assert (rows["unseen_loss"] > 0).all() and (rows["before"] != rows["unseen_loss"]).all()
    page = (tmp_path / "sinusoid.md").read_text(encoding="utf-8")
    loss = rows["unseen_loss"][1]
    assert f"| {loss:.4f} | 4.4 to 4.8 | 2 |" in page and "| plain PyTorch | 3.00 | 2.00 |" in page
    assert "; seeds 0; " in page and page.endswith("recipes name. A busy machine.\n")
    assert "| sinusoid-fedreptile within 20 % of 0.072 | " in page and "| failed |" in page
    assert study.main(words) == 1 and len(calls) == 2  # all runs are there
    assert study.main([*words, "--seed", "1"]) == 1 and [c[0] for c in calls[2:]] == list(reversed(NAMES))


def test_bad_input_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert study.main(["--out", str(tmp_path), "--recipes", "sinusoid-anil"]) == 2
    assert "recipes = 'sinusoid-anil': must be of sinusoid-reptile, " in capsys.readouterr().err
    assert study.main(["--out", str(tmp_path), "--recipes", ""]) == 2
    assert "holds no completed run" in capsys.readouterr().err


def test_gates_compare_means_over_seeds() -> None:
    figures = {"reptile": (0.10, 0.15), "fomaml": (0.06, 0.08), "maml": (0.060, 0.088), "joint": (3.0, 4.2)}
    rows = [{"recipe": f"sinusoid-{name}", "unseen_loss": v} for name, both in figures.items() for v in both]
    found = {wanted: (value, verdict) for wanted, value, verdict in study.gates(pd.DataFrame(rows))}
    assert found == {
        "sinusoid-reptile within 20 % of 0.125": ("0.125", "holds"),
        "sinusoid-fomaml within 20 % of 0.07": ("0.070", "holds"),
        "sinusoid-joint within 20 % of 4.63": ("3.600", "failed"),  # 3.704 is 20 % less
        "sinusoid-maml / sinusoid-fomaml at most 1.05": ("1.057", "failed"),
        "sinusoid-joint at least 3.5": ("3.600", "holds"),
    }


def test_recipes_of_maml_are_told_apart_by_their_order() -> None:
    for name, order in (("sinusoid-fomaml", 1), ("sinusoid-maml", 2)):
        config = make(name).to_dict()
        assert config["strategy"]["order"] == order
        assert study.recipe_of(SimpleNamespace(config=config)) == name  # type: ignore[arg-type]
