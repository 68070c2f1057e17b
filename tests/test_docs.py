"""README and CONTRIBUTING are run: what a document says is checked, or it is deleted."""

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

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
"""Of a command: whether it trains on real data. ``deploy`` has tests of its own: tests/experiments/test_deploy.py."""


def python_m(command: str, cwd: Path, *more: str) -> subprocess.CompletedProcess[str]:
    """Run a ``python -m`` line of a document in another folder, with more words behind it."""
    words = [
        sys.executable,
        *shlex.split(command.replace("path/to/your/flower/project", str(ROOT / "tests/apps/plain")))[1:],
        *more,
    ]
    return subprocess.run(words, cwd=cwd, capture_output=True, text=True)


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
    done = python_m(command, tmp_path, *short)
    assert done.returncode == 0, done.stderr[-2000:]


@pytest.mark.slow
@pytest.mark.parametrize("command", [c for c in PYTHON if NEEDS_DATA(c)])
def test_commands_on_real_data_work(command: str, tmp_path: Path, real_data: Path) -> None:
    short = [] if "--dry-run" in command else ["--rounds", "1"]
    done = python_m(command, tmp_path, *short, "--data_dir", str(real_data))
    assert done.returncode == 0, done.stderr[-2000:]


def test_the_quickstart_prints_what_the_readme_shows(tmp_path: Path) -> None:
    """Columns, accuracies (but max pooling's), megabytes and the picture; digests and seconds are the machine's own."""
    done = python_m("python -m experiments.run", tmp_path)
    assert done.returncode == 0, done.stderr[-2000:]
    shown = next(block for block in blocks(README, "") if block.startswith("strategy"))
    lines = [line.split() for line in shown.splitlines()]
    printed = [line.split() for line in done.stdout.splitlines()]
    assert lines[0] in printed  # the columns
    rows = {row[0]: row for row in printed if row}
    for row in lines[2:]:
        if row[0] != "maxpool":  # it diverges: rounding decides where to
            assert abs(float(rows[row[0]][2]) - float(row[2])) < 0.05  # accuracy; other processors round differently
        assert rows[row[0]][6:8] == row[6:8] or rows[row[0]][7:9] == row[7:9]  # megabytes: exact anywhere
    picture = Path(re.findall(r"curves: (.*\.png)", done.stdout)[0])
    assert (tmp_path / picture).stat().st_size > 10_000


def test_the_notebook_snippet_works(tmp_path: Path) -> None:
    """README's lines with the names that a reader would have."""
    snippet = next(block for block in blocks(README, "python") if "run(" in block).replace("[...]", "[]")
    before = "import numpy as np, torch\nfrom strategies.fedavg import FedAvg as Mine\nx = np.linspace(-1, 1, 120, dtype='f').reshape(60, 2)\n"
    before += "y, ids, my_module = (x[:, 0] > 0).astype(int), np.arange(60) % 3, torch.nn.Linear(2, 2)\n"
    done = subprocess.run([sys.executable, "-c", before + snippet], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]


def test_the_example_strategy_passes_the_contract(tmp_path: Path) -> None:
    (tmp_path / "fedmomentum.py").write_text(blocks(CONTRIBUTING, "python")[0])
    done = subprocess.run(
        [sys.executable, "-m", "experiments.check", "fedmomentum.py"], cwd=tmp_path, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
