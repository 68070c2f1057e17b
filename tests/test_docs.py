"""The commands and the code of README and CONTRIBUTING are run, and the output that README shows is compared."""

import re
import runpy
import shlex
import subprocess
import sys
import warnings
from contextlib import chdir, redirect_stderr, redirect_stdout
from io import StringIO
from pathlib import Path

import numpy as np
import pytest
import torch

from experiments.check.same_digests import last_of_each
from strategies.fedavg import FedAvg

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
CONTRIBUTING = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")


def blocks(text: str, language: str) -> list[str]:
    """The fenced code blocks of one language."""
    return [
        body for name, body in re.findall(r"^```(\w*)\n(.*?)^```$", text, re.DOTALL | re.MULTILINE) if name == language
    ]


COMMANDS = [
    line.split("  #")[0].strip() for block in blocks(README, "bash") for line in block.splitlines() if line.strip()
]
PYTHON = [command for command in COMMANDS if command.startswith("python -m")]
NEEDS_DATA = re.compile("cifar10|million").search
"""Whether a command trains on real data. ``deploy`` has tests of its own: tests/experiments/test_deploy.py."""
STARTS_OTHERS = re.compile("--app|--engine|experiments.backends").search
"""Whether a command may start other processes; it then gets a process of its own."""


def words(command: str, *more: str) -> list[str]:
    """The arguments of a ``python`` line of a document, with more behind them, which replace those of the same name."""
    own = shlex.split(command.replace("path/to/your/flower/project", str(ROOT / "tests/apps/plain")))[1:]
    return last_of_each([*own, *more])


def python(arguments: list[str], cwd: Path) -> subprocess.CompletedProcess[str]:
    """Run Python in another folder."""
    return subprocess.run([sys.executable, *arguments], cwd=cwd, capture_output=True, text=True)


def python_here(arguments: list[str], cwd: Path) -> subprocess.CompletedProcess[str]:
    """``python -m MODULE ...`` in another folder, but in this process, which has imported the libraries already."""
    out, err, code = StringIO(), StringIO(), 0
    before = sys.argv
    with chdir(cwd), redirect_stdout(out), redirect_stderr(err), warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # the module may have been imported before
        sys.argv = arguments[1:]
        try:
            runpy.run_module(arguments[1], run_name="__main__", alter_sys=True)
        except SystemExit as end:
            code = int(end.code or 0)
        finally:
            sys.argv = before
    return subprocess.CompletedProcess(arguments, code, out.getvalue(), err.getvalue())


def run_command(command: str, cwd: Path, *more: str) -> str:
    """Run a ``python -m`` line of a document; returns what it printed. Fails where its exit code is not 0."""
    run = python if STARTS_OTHERS(command) else python_here
    done = run(words(command, *more), cwd)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    return done.stdout


def test_the_documents_name_commands() -> None:
    assert len(PYTHON) >= 7 and "make run" in {c.split("  ")[0] for c in COMMANDS}


@pytest.mark.parametrize("command", [c for c in COMMANDS if c.startswith("make")])
def test_make_targets_exist(command: str) -> None:
    done = subprocess.run([*command.split(), "--dry-run"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("command", [c for c in PYTHON if not NEEDS_DATA(c) and "experiments.deploy" not in c])
def test_commands_work(command: str, tmp_path: Path) -> None:
    short = ["--rounds", "2"] if "experiments.run" in command and "--app" not in command else []
    if "experiments.backends" in command:  # a minute a strategy; make test-faults compares all of them on devices
        short = ["--strategy", "maml", "--rounds", "2", "--clients", "2"]
        short += ["--partition.held_out", "0.2", "--personalize_steps", "2"]
    run_command(command, tmp_path, *short)


@pytest.mark.slow
@pytest.mark.parametrize("command", [c for c in PYTHON if NEEDS_DATA(c)])
def test_commands_on_real_data_work(command: str, tmp_path: Path, real_data: Path) -> None:
    short = [] if "--dry-run" in command else ["--rounds", "1"]
    run_command(command, tmp_path, *short, "--data_dir", str(real_data))


def test_the_quickstart_prints_what_the_readme_shows(tmp_path: Path) -> None:
    """Columns, accuracies (not max pooling's), megabytes and the picture; digests and seconds differ by machine."""
    done = python(["-m", "experiments.run"], tmp_path)
    assert done.returncode == 0, done.stderr[-2000:]
    shown = next(block for block in blocks(README, "") if block.startswith("strategy"))
    lines = [line.split() for line in shown.splitlines()]
    printed = [line.split() for line in done.stdout.splitlines()]
    assert lines[0] in printed  # the columns
    rows = {row[0]: row for row in printed if row}
    assert lines[-1] in printed  # megabytes, the same in every row, are exact on any machine
    for row in lines[2:-1]:
        if row[0] != "maxpool":  # it diverges, and rounding decides where to
            assert abs(float(rows[row[0]][1]) - float(row[1])) < 0.05  # accuracy; other processors round differently
    picture = Path(re.findall(r"curves: (.*\.png)", done.stdout)[0])
    assert (tmp_path / picture).stat().st_size > 10_000


def test_the_notebook_snippet_works(tmp_path: Path) -> None:
    """README's lines, with the names that they take as given."""
    code = next(block for block in blocks(README, "python") if "run(" in block).replace("[...]", "[]")
    x = np.linspace(-1, 1, 120, dtype=np.float32).reshape(60, 2)
    names = {"x": x, "y": (x[:, 0] > 0).astype(int), "ids": np.arange(60) % 3}
    names |= {"Mine": FedAvg, "my_module": torch.nn.Linear(2, 2)}
    with chdir(tmp_path):
        exec(code, names)
    assert names["outcome"].summary["status"] == "completed"
    assert names["outcome"].log.rounds["top1"].notna().all()


def test_the_example_strategies_pass_the_contract(tmp_path: Path) -> None:
    for name, example in zip(("fedmomentum", "normalised"), blocks(CONTRIBUTING, "python"), strict=True):
        (tmp_path / f"{name}.py").write_text(example)
        run_command(f"python -m experiments.check {name}.py", tmp_path)
