"""The study of sine waves: what it runs, how it tells recipes apart, the page."""

from pathlib import Path

import pandas as pd
import pytest

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
    words = ["--out", str(tmp_path / "runs"), "--recipes", ",".join(reversed(NAMES)), "--turns", "3"]
    assert study.main([*words, "--note", "A busy machine."]) == 0
    rows = pd.read_csv(tmp_path / "sinusoid.csv")
    assert rows["recipe"].tolist() == NAMES and rows["rounds"].tolist() == [2, 2]
    assert (rows["unseen_loss"] > 0).all() and (rows["before"] != rows["unseen_loss"]).all()
    page = (tmp_path / "sinusoid.md").read_text(encoding="utf-8")
    loss = rows["unseen_loss"][1]
    assert f"| {loss:.4f} | 4.4 to 4.8 | 2 |" in page and "| plain PyTorch | 3.00 | 2.00 |" in page
    assert "; seeds 0; " in page and page.endswith("recipes name. A busy machine.\n")
    assert study.main(words) == 0 and len(calls) == 2  # all runs are there
    assert study.main([*words, "--seed", "1"]) == 0 and [c[0] for c in calls[2:]] == list(reversed(NAMES))


def test_bad_input_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert study.main(["--out", str(tmp_path), "--recipes", "sinusoid-maml"]) == 2
    assert "recipes = 'sinusoid-maml': must be of sinusoid-reptile, " in capsys.readouterr().err
    assert study.main(["--out", str(tmp_path), "--recipes", ""]) == 2
    assert "holds no completed run" in capsys.readouterr().err
