"""Processes of ``--parallel N`` that die: the failure of the run that they made, of no other."""

import sys
from pathlib import Path

import pytest

from experiments.config.recipe_files import make
from experiments.sweep import sweep, trial_workers
from experiments.sweep.trial_batches import Job
from experiments.sweep.trial_runs import made
from experiments.sweep.trial_workers import TrialWorkers
from fl_sim.errors import ConfigError
from tests.experiments.sweep.test_sweep_runs import WORLD


def process(monkeypatch: pytest.MonkeyPatch, code: str) -> None:
    """Let each process be one that runs ``code``."""
    monkeypatch.setattr(trial_workers, "COMMAND", (sys.executable, "-S", "-c", f"import os\n{code}"))


def jobs(folder: Path, count: int) -> list[Job]:
    config = make(**WORLD)
    return [Job(config, folder / str(number)) for number in range(count)]


def test_a_run_whose_process_dies_has_failed_and_the_others_go_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a batch each run is made alone then; a process that dies later is replaced."""
    process(monkeypatch, "os.write(1, b'+'); os.read(0, 1); os.kill(os.getpid(), 9)")
    a, b, c = jobs(tmp_path, 3)
    with TrialWorkers(2, tmp_path) as workers:
        done = [job.place for group in workers.run([[a], [b, c]]) for job in group]
        assert sorted(done) == [a.place, b.place, c.place]
        for job in (a, b, c):
            state = made(job.place)
            assert state.state == "failed" and "ended by SIGKILL, as where no memory is left; see" in state.error
    process(monkeypatch, "os.write(1, b'+'); os.read(0, 1); os.write(1, b'.'); os.read(0, 9**9)")
    with TrialWorkers(1, tmp_path) as workers:
        workers.processes[0].kill()
        workers.processes[0].wait()
        assert list(workers.run([[a]])) == [[a]]


@pytest.mark.parametrize(
    "code, kind, message",
    [
        ("raise SystemExit(3)", ConfigError, r"parallel: process 0 cannot start \(it ended with code 3\); see .*log"),
        ("os.write(1, b'+'); os.read(0, 1); os.kill(os.getpid(), 15)", KeyboardInterrupt, "process 0 got SIGTERM"),
    ],
)
def test_what_is_no_runs_failure_ends_the_sweep_and_marks_no_run(
    code: str, kind: type[BaseException], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    process(monkeypatch, code)
    [job] = jobs(tmp_path, 1)
    with TrialWorkers(1, tmp_path) as workers, pytest.raises(kind, match=message):
        list(workers.run([[job]]))
    assert made(job.place).state == "missing"


@pytest.mark.faults
def test_a_sweep_goes_on_where_a_process_is_killed(tmp_path: Path) -> None:
    """The model of one trial kills its process as it is made."""
    models = ["sweep_models:plain", "sweep_models:killer"]
    source = "import os\nfrom tests.experiments.config.tiny_world import linear as plain\n\n"
    source += "def killer(inputs, outputs):\n    os.kill(os.getpid(), 9)\n"
    (tmp_path / "sweep_models.py").write_text(source)
    sys.path.insert(0, str(tmp_path))
    try:
        world = {key: value for key, value in WORLD.items() if key != "model"}
        found = sweep({"model": models}, out=tmp_path / "sweep", parallel=2, batch=False, seed=[0, 1], **world)
    finally:
        sys.path.remove(str(tmp_path))
    assert found.table["state"].tolist() == ["completed", "failed"] and found.failed == 1
    assert "ended by SIGKILL" in found.table["error"][1]
