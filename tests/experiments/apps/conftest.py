"""Writes small apps into a folder and runs them."""

import json
from pathlib import Path
from typing import Any

import pytest

from experiments.run import main
from fl_sim import load
from fl_sim.logs.reader import RunLog
from tests.experiments.apps.small_apps import CLIENT, PYPROJECT, SERVER, Try


@pytest.fixture
def attempt(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Try:
    """``attempt(server, client, "--clients", "3")``: (exit code, summary, round log, what the app said)."""
    monkeypatch.chdir(tmp_path)
    made = iter(range(99))

    def run(
        server: str, client: str = CLIENT, *words: str, head: str = SERVER
    ) -> tuple[int, dict[str, Any], RunLog, str]:
        name = f"small{next(made)}"
        folder = tmp_path / name
        folder.mkdir()
        (folder / "pyproject.toml").write_text(PYPROJECT.format(name=name))
        (folder / f"{name}_s.py").write_text(head + server)
        (folder / f"{name}_c.py").write_text(client)
        code = main(["--app", str(folder), "--quiet", "--json", "--out", "runs", *(words or ("--clients", "3"))])
        summary = json.loads(capsys.readouterr().out.splitlines()[-1])
        heard = (tmp_path / "said.txt").read_text() if (tmp_path / "said.txt").exists() else ""
        return code, summary, load(summary["run_dir"]), heard

    return run
