"""``python -m experiments.collect``: a study's table and picture, from its logs."""

import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

from experiments import collect
from experiments.provenance import of_run
from experiments.run import main as run


def test_it_keeps_table_command_and_picture(tmp_path: Path, monkeypatch, capsys) -> None:
    monkeypatch.setattr(collect, "RESULTS", tmp_path)
    assert run(["--rounds", "1", "--clients", "4", "--seed", "0,1", "--out", str(tmp_path / "runs"), "--quiet"]) == 0
    words = ["study", str(tmp_path / "runs"), "--command", "the command", "--note", "A note."]
    assert collect.main([*words, "--tuned", ""]) == 2 and "say what was tuned on what" in capsys.readouterr().err
    assert collect.main([*words, "--tuned", "lr on the validation share"]) == 0
    rows = pd.read_csv(tmp_path / "study.csv")
    text = (tmp_path / "study.md").read_text(encoding="utf-8")
    assert rows["seeds"].tolist() == [2] and "the command" in text and text.rstrip().endswith("A note.")
    here = of_run()
    assert f"2 runs at commit {here['commit'] or 'unknown'}; machine: {here['cpu']}, {here['cores']} cores; " in text
    assert "; seeds 0, 1; " in text and "Tuned: lr on the validation share. " in text
    assert (tmp_path / "study.png").stat().st_size > 5000
    assert (
        collect.main(["study", str(tmp_path / "nothing"), "--tuned", "nothing"]) == 2
        and "error: " in capsys.readouterr().err
    )


def test_a_study_stays_in_its_folder(capsys: pytest.CaptureFixture[str]) -> None:
    assert collect.main(["../study", "nowhere", "--tuned", ""]) == 2
    assert "name = '../study': a study's files lie in" in capsys.readouterr().err


def test_collect_and_backends_need_nothing_of_the_bench() -> None:
    """They must work without the extra ``bench``."""
    code = "import sys, experiments.backends, experiments.collect; "
    code += "print([name for name in sys.modules if name.startswith('experiments.bench') or name == 'psutil'])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
