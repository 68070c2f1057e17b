"""However a run ends, its exit code says how, its summary is written, and no finished round is lost."""

import errno
import json
import os
import signal
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch

from experiments import run
from experiments.analysis import save_comparison
from experiments.command_ends import Interrupted
from experiments.runs import progress
from fl_sim import Callback, Run, from_arrays, load
from fl_sim.executors import inline
from fl_sim.logs.round_columns import repeatable
from fl_sim.rounds import checkpoint
from strategies.fedavg import FedAvg

HERE = Path(__file__).parent
SMALL = "--model lr --clients 4 --cohort 3 --rounds 4 --block_size 2 --partition.held_out 0.2 --personalize_steps 1"
RARE = [*SMALL.split(), "--personalize_every", "2", "--checkpoint_every", "100"]
X = torch.linspace(-1, 1, 80).reshape(40, 2)
TASK: dict[str, Any] = {"task": from_arrays(X, (X[:, 0] > 0).long()), "model": torch.nn.Linear(2, 2)}
FEW: dict[str, Any] = {**TASK, "clients": 2, "rounds": 2}


def only(folder: Path) -> Path:
    """The one run in a folder."""
    [found] = folder.iterdir()
    return found


def lines(folder: Path) -> dict[str, Any]:
    """The tables of a run without times."""
    return {
        name: [
            repeatable(json.loads(line))
            for line in (folder / f"{name}.jsonl").read_text().splitlines()
            if '"event":"resumed"' not in line
        ]
        for name in ("rounds", "clients", "events")
    }


def break_off(error: BaseException, blocks: int, patch: pytest.MonkeyPatch) -> None:
    """Raise ``error`` where the run asks for one block more than ``blocks``."""
    work, done = inline.run_plan, []

    def dying(*args: Any) -> Any:
        done.append(1)
        if len(done) > blocks:
            raise error
        return work(*args)

    patch.setattr(inline, "run_plan", dying)


@pytest.mark.parametrize(
    "strategy, engine, error, code",
    [
        ("remembering:Counts", "loop", Interrupted(signal.SIGTERM), 143),
        ("flwr.serverapp.strategy:FedAdam", "vmap", MemoryError("in the executor"), 1),
    ],
)
def test_a_run_that_breaks_off_loses_no_finished_round(
    strategy: str, engine: str, error: BaseException, code: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the middle of round 4, when a client has a new state and a row; no round but the last is due a checkpoint."""
    monkeypatch.syspath_prepend(str(HERE))
    words = ["--strategy", strategy, "--engine", engine, *RARE, "--quiet"]
    assert run.main([*words, "--out", str(tmp_path / "whole")]) == 0
    with monkeypatch.context() as patch:
        break_off(error, 3 * 2 + 2 + 1, patch)  # two blocks a round; a personal evaluation after the second
        assert run.main([*words, "--out", str(tmp_path / "broken")]) == code
    broken, whole = only(tmp_path / "broken"), only(tmp_path / "whole")
    assert [checkpoint.round_of(path) for path in checkpoint.listed(broken)] == [3]
    assert load(broken).summary["rounds"] == 3
    assert run.main(["--resume", str(broken), "--quiet"]) == 0
    assert lines(broken) == lines(whole)
    mine, theirs = load(broken).model(), load(whole).model()
    assert mine.keys() == theirs.keys() and all(torch.equal(mine[k], theirs[k]) for k in mine)


def test_a_signal_is_named_in_the_summary(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.MonkeyPatch.context() as patch:
        break_off(Interrupted(signal.SIGHUP), 1, patch)
        assert run.main([*RARE, "--out", str(tmp_path), "--quiet", "--json"]) == 129
    out, err = capsys.readouterr()
    assert (json.loads(out)["status"], json.loads(out)["stopped"]) == ("stopped", "interrupted by SIGHUP")
    assert "interrupted by SIGHUP; to go on: python -m experiments.run --resume" in err and "Traceback" not in err


class Odd(BaseException):
    """No Exception: ``except Exception`` does not see it."""


@dataclass
class Exits(FedAvg):
    """Its clients end the process."""

    def gradient(self, *_: Any) -> Any:
        os._exit(7)  # not 0: without the guard, tests in one process must not end as if they had passed


@dataclass
class Raises(FedAvg):
    """Its clients raise what is no Exception."""

    def gradient(self, *_: Any) -> Any:
        raise Odd("strange")


class Breaks(Callback):
    """Raises an error in round 2."""

    def __init__(self, error: BaseException) -> None:
        self.error = error

    def on_round_start(self, run: Run) -> None:
        if run.round == 2:
            raise self.error


@pytest.mark.parametrize(
    "error, said", [(Odd("strange"), "raised Odd: strange"), (SystemExit(0), "called sys.exit(0)")]
)
def test_what_is_no_exception_fails_a_run_with_a_summary(error: BaseException, said: str, tmp_path: Path) -> None:
    with pytest.raises(run.RoundFailed, match=r"round 2: the strategy or a callback") as caught:
        run.run(**FEW, callbacks=[Breaks(error)], out=tmp_path)
    assert said in str(caught.value)
    summary = load(only(tmp_path)).summary
    assert (summary["status"], summary["rounds"]) == ("failed", 1) and said in summary["error"]


@pytest.mark.parametrize("engine", ["loop", "vmap"])
@pytest.mark.parametrize("how", ["os._exit", "BaseException"])
def test_a_client_that_ends_the_process_has_failed(how: str, engine: str, tmp_path: Path) -> None:
    said = "os._exit(7) was called" if how == "os._exit" else "Odd: strange"
    strategy = Exits() if how == "os._exit" else Raises()
    with pytest.raises(run.RoundFailed, match="client 0, train") as caught:
        run.run(**FEW, strategy=strategy, engine=engine, out=tmp_path)
    assert said in str(caught.value) and load(only(tmp_path)).summary["status"] == "failed"


def test_a_table_that_does_not_fit_fails_no_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(save_comparison, "curves", full)
    assert run.main(["--model", "lr", "--clients", "2", "--rounds", "1", "--out", str(tmp_path)]) == 0
    out = capsys.readouterr().out
    assert "warning: the table and the curves could not be saved" in out and "fedavg" in out
    assert load(only(tmp_path)).summary["status"] == "completed"


def test_no_room_for_a_run_folder_is_exit_code_1(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "mkdir", full)
    assert run.main(["--model", "lr", "--clients", "2", "--rounds", "1", "--out", str(tmp_path), "--quiet"]) == 1


def test_a_bar_begins_where_the_run_does(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a resumed run, and of a fork, the rounds done are not part of its speed."""
    bars: dict[Any, Any] = {}

    class Bar(progress.tqdm):  # type: ignore[misc,type-arg]
        def close(self) -> None:
            bars[self] = self.initial, self.n, self.total  # closed once more when it is deleted
            super().close()

    monkeypatch.setattr(progress, "tqdm", Bar)
    monkeypatch.setattr(progress.sys.stderr, "isatty", lambda: True)
    monkeypatch.setattr(run, "report", lambda *_: 0)
    words = ["--model", "lr", "--clients", "2", "--rounds"]
    assert run.main([*words, "1", "--out", str(tmp_path / "a")]) == 0
    assert run.main(["--resume", str(only(tmp_path / "a")), "--rounds", "2"]) == 0
    assert run.main([*words, "2", "--fork", f"{only(tmp_path / 'a')}@1", "--out", str(tmp_path / "b")]) == 0
    assert list(bars.values()) == [(0, 1, 1), (1, 2, 2), (1, 2, 2)]
