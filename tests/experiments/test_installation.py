"""Packages of others in the place of this project's: found out before anything fails, and named in one line."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from experiments.installation import ROOT, child_environment, foreign, refuse_foreign_packages, version

DECOY = "raise RuntimeError('a module of the user')\n"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Comes first on ``sys.path``; the packages of this project are not imported yet."""
    monkeypatch.setattr(sys, "path", [str(tmp_path), ROOT, *sys.path])
    for name in ("strategies", "clients", "fl_sim"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    return tmp_path


def test_our_own_packages_are_not_foreign(folder: Path) -> None:
    (folder / "clients").mkdir()  # without __init__.py: Python passes over it where a package comes later
    assert [foreign(name) for name in ("strategies", "clients", "fl_sim", "no_such_package")] == [""] * 4
    refuse_foreign_packages()


def test_packages_behind_a_link_are_our_own(folder: Path) -> None:
    (folder / "strategies").symlink_to(Path(ROOT) / "strategies")
    assert foreign("strategies") == ""


def test_a_module_a_package_and_a_folder_of_others_are_foreign(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "strategies.py").write_text(DECOY)
    (folder / "clients").mkdir()
    (folder / "clients" / "__init__.py").write_text(DECOY)
    assert foreign("strategies") == str(folder / "strategies.py")
    assert foreign("clients") == str(folder / "clients" / "__init__.py")
    (folder / "fl_sim").mkdir()
    monkeypatch.setattr(sys, "path", [str(folder)])
    monkeypatch.setattr(sys, "meta_path", [finder for finder in sys.meta_path if "ditable" not in repr(finder)])
    assert foreign("fl_sim") == str(folder / "fl_sim")


def test_a_command_says_it_in_one_line_and_exits_2(tmp_path: Path) -> None:
    (tmp_path / "strategies.py").write_text(DECOY)
    command = [sys.executable, "-m", "experiments.run", "quickstart"]
    env = {k: v for k, v in os.environ.items() if k != "PYTHONSAFEPATH"} | {"PYTHONPATH": ROOT}
    done = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)
    assert done.stderr.startswith(f"error: 'strategies' is found at {tmp_path / 'strategies.py'}")
    assert "run fl-sim instead of python -m, or rename it" in done.stderr


@pytest.mark.parametrize(
    ("argument", "error", "cure"),
    [
        ("/venv/bin/fl-sim", SystemExit, "take its folder out of PYTHONPATH, or rename it"),
        ("my_notebook.py", ImportError, "take its folder out of PYTHONPATH, or rename it"),
    ],
)
def test_the_console_script_exits_and_a_library_raises(
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    argument: str,
    error: type[BaseException],
    cure: str,
) -> None:
    (folder / "strategies.py").write_text(DECOY)
    monkeypatch.setattr(sys, "argv", [argument])
    with pytest.raises(error) as caught:
        refuse_foreign_packages()
    said = capsys.readouterr().err if error is SystemExit else str(caught.value)
    assert cure in said and str(folder / "strategies.py") in said
    assert error is ImportError or caught.value.args == (2,)


def test_a_child_process_imports_this_project_in_any_folder(tmp_path: Path) -> None:
    (tmp_path / "experiments.py").write_text(DECOY)
    env = os.environ | child_environment()
    command = [sys.executable, "-m", "experiments", "--version"]
    done = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, f"fl-sim {version('')}\n"), done.stderr
