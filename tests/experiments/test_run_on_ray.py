"""``--engine ray`` on the command line: equal results, exit codes, and no process left behind."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from experiments.run import main

ROOT = Path(__file__).parents[2]
SMALL = [
    "--strategy",
    "fedavg",
    "--model",
    "lr",
    "--clients",
    "8",
    "--block_size",
    "2",
    "--rounds",
    "2",
    "--quiet",
    "--json",
]
RAY = ["--engine", "ray", "--ray.num_workers", "2", "--ray.engine", "loop"]
ONE = ["--engine", "ray", "--ray.num_workers", "1", "--ray.engine", "loop"]
one_ray = pytest.mark.ray


def start(tmp_path: Path, *words: str, mark: str = "") -> subprocess.Popen[str]:
    """Start the command in a session of its own; ``mark`` is in the environment of all processes that it starts.

    It reacts to Ctrl-C (SIGINT) even where the process that runs the tests ignores it.
    """
    command = [sys.executable, "-m", "experiments.run", *words, "--out", str(tmp_path / "runs")]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "FL_SIM_TEST_MARK": mark}
    return subprocess.Popen(
        command,
        cwd=tmp_path,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )


def done(tmp_path: Path, *words: str, mark: str = "") -> tuple[int, Any, str]:
    """Run the command; returns (exit code, the JSON that it printed, stderr)."""
    process = start(tmp_path, *words, mark=mark)
    out, err = process.communicate(timeout=280)
    return process.returncode, json.loads(out) if out.strip() else None, err


def left(mark: str) -> list[str]:
    """Commands that still run with ``mark`` in their environment, after a minute at most."""
    until = time.monotonic() + 60
    while True:
        found = []
        for process in Path("/proc").glob("[0-9]*"):
            try:
                if f"FL_SIM_TEST_MARK={mark}".encode() in (process / "environ").read_bytes().split(b"\0"):
                    found.append((process / "cmdline").read_text().replace("\0", " "))
            except OSError:  # the process has ended, or is another user's
                continue
        if not found or time.monotonic() > until:
            return found
        time.sleep(0.2)


@pytest.mark.slow
@one_ray
def test_a_run_is_that_of_the_loop_and_its_config_repeats_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, result, err = done(tmp_path, *SMALL, *RAY, mark="repeats")
    assert code == 0, err[-2000:]
    assert result["engine"] == "ray" and result["workers"]["num_workers"] == 2 and result["workers"]["nodes"] == 1
    assert not err.strip()
    assert left("repeats") == []
    assert main([*SMALL, "--engine", "loop", "--out", str(tmp_path / "loop")]) == 0
    plain = json.loads(capsys.readouterr().out)
    assert plain["digest"] == result["digest"] and plain["loss"] == result["loss"]
    code, again, err = done(tmp_path, str(Path(result["run_dir"]) / "config.toml"), "--quiet", "--json")
    assert code == 0 and again["digest"] == result["digest"], err[-2000:]


DEADLY = '''"""A strategy whose clients kill the process that trains them."""
import os
from dataclasses import dataclass
from strategies.fedavg import FedAvg

@dataclass
class Deadly(FedAvg):
    """No paper."""
    def local_update(self, *args):
        os.kill(os.getpid(), 9)
'''


@pytest.mark.slow
@one_ray
def test_a_block_that_kills_its_workers_is_exit_code_1(tmp_path: Path) -> None:
    """The strategy's file is in the folder where the command is called; workers find it there too."""
    (tmp_path / "deadly.py").write_text(DEADLY)
    words = ["--strategy", "deadly:Deadly", *SMALL[2:], *ONE]
    code, result, err = done(tmp_path, *words, mark="deadly")
    assert code == 1, err[-2000:]
    assert "run failed: train, block" in err and "3 workers died over it" in err and "(clients " in err
    assert result["workers"]["restarts"] >= 3 and left("deadly") == []


@pytest.mark.slow
@one_ray
def test_an_interrupted_run_leaves_nothing(tmp_path: Path) -> None:
    process = start(tmp_path, *SMALL[:-4], "--rounds", "100000", "--quiet", "--json", *ONE, mark="interrupted")
    until = time.monotonic() + 200
    while not any(len(file.read_text().splitlines()) > 3 for file in tmp_path.glob("runs/*/rounds.jsonl")):
        assert time.monotonic() < until and process.poll() is None, process.communicate()
        time.sleep(0.2)
    os.killpg(process.pid, signal.SIGINT)  # as a terminal sends it: to all processes of the foreground
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130 and "interrupted; to go on: python -m experiments.run --resume" in err
    assert json.loads(out)["status"] == "stopped" and left("interrupted") == []


@pytest.mark.slow
@one_ray
def test_a_killed_run_leaves_nothing_and_goes_on(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    process = start(tmp_path, *SMALL[:-4], "--rounds", "100000", "--quiet", "--json", *ONE, mark="killed")
    until = time.monotonic() + 200
    while not any(len(file.read_text().splitlines()) > 1 for file in tmp_path.glob("runs/*/rounds.jsonl")):
        assert time.monotonic() < until and process.poll() is None, process.communicate()
        time.sleep(0.2)
    process.kill()
    process.communicate(timeout=60)
    # Ray's agents wait a minute for the cluster's head; the second names are theirs until they have started.
    patient = re.compile("ray::DashboardAgent|ray::RuntimeEnvAgent|/ray/dashboard/agent.py|/runtime_env/agent/main.py")
    assert [command for command in left("killed") if not patient.search(command)] == []
    [log] = tmp_path.glob("runs/*/rounds.jsonl")
    rounds = ["--rounds", str(len(log.read_text().splitlines()) + 2)]
    code, result, err = done(tmp_path, "--resume", str(log.parent), *rounds, "--quiet", "--json")
    assert code == 0 and result["run_dir"] == str(log.parent), err[-2000:]
    assert main([*SMALL[:-4], *rounds, "--quiet", "--json", "--engine", "loop", "--out", str(tmp_path / "loop")]) == 0
    assert json.loads(capsys.readouterr().out)["digest"] == result["digest"]


def test_ray_is_imported_only_where_it_works_and_runs_need_it_only_there(tmp_path: Path) -> None:
    """Without Ray the loop works, and the ray engine names the cure."""
    code = """
import sys
import fl_sim, fl_sim.executors.ray.executor
from experiments.runs.setup import build
from experiments.config.recipe_files import make
from experiments.run import main
build(make(engine="ray")).grid.close()
assert main(["--strategy", "fedavg", "--engine", "ray", "--dry-run", "--json"]) == 0
assert not [name for name in sys.modules if name == "ray" or name.startswith("ray.")]
sys.modules["ray"] = None
small = ["--strategy", "fedavg", "--rounds", "1", "--quiet", "--engine"]
assert main([*small, "loop"]) == 0
sys.exit(main([*small, "ray"]))
"""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 2, done.stderr[-2000:]
    assert done.stderr == "error: engine = 'ray': Ray is not installed; pip install ray, or use --engine loop\n"
    assert len(list(tmp_path.glob("runs/*"))) == 1
