"""pFedMe's own setting: the flags of its rows, and the page."""

from pathlib import Path

import pandas as pd
import pytest

from experiments.studies import study_runs
from experiments.studies.meta import moreau as study

TINY = ["--task", "digits", "--clients", "10", "--rounds", "2", "--local.steps", "1", "--personalize_steps", "1"]


def test_the_command_makes_three_rows_and_the_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(study_runs, "RESULTS", tmp_path)
    words = ["--out", str(tmp_path / "runs"), "--seeds", "0", *TINY]
    assert study.main(words) == 0 and study.main(["--out", str(tmp_path / "runs"), "--seeds", ""]) == 0
    rows, page = pd.read_csv(tmp_path / "moreau.csv"), (tmp_path / "moreau.md").read_text()
    assert rows["arm"].tolist() == list(study.ARMS) and rows["rounds"].tolist() == [2, 2, 2]
    assert rows["mb"][1] == pytest.approx(2 * rows["mb"][2], rel=0.2) and "Rounds: 2." in page
    above = rows["personal_accuracy_before"][2] > rows["personal_accuracy_before"][0]
    assert f"pfedme, honest sampling: {'met.' if above else 'met in 0 of 1 seeds.'}" in page
    assert study.main(["--out", str(tmp_path / "none"), "--seeds", ""]) == 2
