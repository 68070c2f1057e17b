"""``python -m experiments.check``: what the command reports of a file."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Literal

import pytest

from experiments import check
from experiments.check import strategy_checks
from experiments.check.__main__ import main


def test_variants_come_from_literal_parameters_one_at_a_time() -> None:
    def component(a: Literal["x", "y", "z"] = "x", b: Literal[1, 2] = 2, c: float = 0.5) -> None: ...

    assert check.variants(component) == [{}, {"a": "y"}, {"a": "z"}, {"b": 1}]


GOOD = '''
"""A partition, a model and a task of a user's own."""
import numpy as np
from torch import nn
from fl_sim import Partition, Task, from_arrays, rng
from fl_sim.registry import offer
from strategies.fedavg import FedAvg  # imported, not defined here: not checked

@offer("partition")
def thirds(task: Task, clients: int, seed: int) -> Partition:
    return Partition.of(np.array_split(rng.permutation(rng.key(seed, "thirds"), task.num_train), clients))

@offer("model")
def tiny(inputs: tuple[int, ...], outputs: int) -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(int(np.prod(inputs)), outputs))

@offer("task", name="two-points")
def two_points() -> Task:
    return from_arrays(np.array([[0.0], [1.0]] * 4), np.array([0, 1] * 4))
'''
BAD = '''
from dataclasses import dataclass
from typing import Literal
from strategies.base.strategy import Strategy

@dataclass
class Half(Strategy):
    """Fine as it is; raises in its other way."""
    way: Literal["good", "bad"] = "good"

    def server_step(self, model, pooled, server_round):
        assert self.way == "good"
        return pooled
'''


def test_a_good_file_exits_0_and_leaves_nothing_behind(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "my_parts.py").write_text(GOOD)
    path = list(sys.path)
    assert main([str(tmp_path / "my_parts.py")]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[-1] == "15 of 15 checks hold" and all(line.startswith("ok ") for line in lines[:-1])
    assert {line.split(":")[0].removeprefix("ok     ") for line in lines[:-1]} == {
        "partition thirds",
        "model tiny",
        "task two-points",
    }
    assert "my_parts" not in sys.modules and sys.path == path


def test_a_bad_file_exits_1_and_says_what_and_why(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "my_algorithm.py").write_text(BAD)
    assert main([str(tmp_path / "my_algorithm.py"), "--json"]) == 1
    done = json.loads(capsys.readouterr().out)
    assert done["status"] == "failed" and done["failed"] == sum(not row["ok"] for row in done["results"]) > 0
    by_name = {name: [row for row in done["results"] if row["name"] == name] for name in ("Half", "Half(way='bad')")}
    assert len(by_name["Half"]) == len(by_name["Half(way='bad')"]) == len(check.CHECKS)
    assert all(row["ok"] for row in by_name["Half"])
    bad = {row["check"] for row in by_name["Half(way='bad')"] if not row["ok"]}
    assert {"model stays finite", "loop and vmap agree"} <= bad and "parameters travel" not in bad


def test_flowers_own_kind_of_strategy_is_checked_as_a_server_half(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "theirs.py").write_text("from flwr.serverapp.strategy import FedAdam\nclass Mine(FedAdam):\n    pass\n")
    assert main([str(tmp_path / "theirs.py")]) == 0
    assert (
        capsys.readouterr().out.splitlines()[-1]
        == f"{len(strategy_checks.FLOWER_CHECKS)} of {len(strategy_checks.FLOWER_CHECKS)} checks hold"
    )


@pytest.mark.parametrize(
    "text, words, says",
    [
        (None, ["nowhere.py"], "no such file"),
        (None, [], "python -m experiments.check FILE"),
        (None, ["a.py", "b.py"], "python -m experiments.check FILE"),
        (None, ["--loud"], "--loud"),
        ("x = 1\n", ["FILE"], "offers nothing to check"),
        ("from strategies.fedavg import FedAvg\n", ["FILE"], "offers nothing to check"),
        ("import no_such_package\n", ["FILE"], "ModuleNotFoundError: No module named 'no_such_package'"),
        ("def broken(:\n", ["FILE"], "SyntaxError"),
        ("raise SystemExit(3)\n", ["FILE"], "SystemExit: 3"),
    ],
)
def test_what_cannot_be_checked_exits_2_in_one_line(
    text: str | None, words: list[str], says: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "given.py"
    if text is not None:
        file.write_text(text)
    assert main([str(file) if word == "FILE" else word for word in words]) == 2
    printed = capsys.readouterr()
    assert says in printed.err and printed.err.startswith("error: ")
    assert printed.err.count("\n") == 1 and printed.out == ""
    assert "given" not in sys.modules


def test_the_command_runs_from_anywhere(tmp_path: Path) -> None:
    (tmp_path / "beside.py").write_text("SHARE = 3\n")
    (tmp_path / "parts.py").write_text(
        GOOD.replace("import numpy as np\n", "import numpy as np\nfrom beside import SHARE\n", 1)
    )
    root = Path(check.__file__).parents[2]
    done = subprocess.run(
        [sys.executable, "-m", "experiments.check", "parts.py"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        env={"PYTHONPATH": str(root)},
    )
    assert (done.returncode, done.stderr) == (0, "") and done.stdout.endswith("15 of 15 checks hold\n")
