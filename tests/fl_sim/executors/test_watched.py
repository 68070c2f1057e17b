"""A client that hangs, or whose process dies, is that client's failure; else blocks have the bits of one process."""

import os
import signal
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch

from experiments.run import Outcome, RoundFailed, run
from fl_sim import from_arrays, load
from fl_sim.executors import forked
from fl_sim.executors.forked import Lost, call_forked
from strategies.fedavg import FedAvg
from tests.fl_sim.executors.virtual_sleep import VirtualSleep

X = torch.linspace(-1, 1, 80).reshape(40, 2)
TASK = from_arrays(X, (X[:, 0] > 0).long(), clients=torch.arange(40) // 10)
CULPRIT = 2
LIMIT_S = 1.5
"""In time that passes where a client sleeps, and nowhere else."""
time_of_test: list[VirtualSleep] = []


@pytest.fixture(autouse=True)
def virtual(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    time_of_test[:] = [VirtualSleep(tmp_path / "virtual")]
    monkeypatch.setattr(forked, "silent", time_of_test[0].silent)


def sleep(seconds: float) -> None:
    time_of_test[0].sleep(seconds)


def go(out: Path, strategy: FedAvg, engine: str = "loop", **settings: Any) -> Outcome:
    """Two rounds of four clients in two blocks."""
    model = torch.nn.Linear(2, 2)
    with torch.no_grad():
        model.weight.fill_(0.1), model.bias.zero_()
    words = {"task": TASK, "model": model, "strategy": strategy, "engine": engine, "block_size": 2, "rounds": 2}
    outcome = run(**{**words, "local": {"batch_size": 5}, **settings}, out=out)
    assert isinstance(outcome, Outcome)
    return outcome


@dataclass
class Fails(FedAvg):
    """Client 2 hangs, is killed or leaves: before it trains, or in its update, of which vmap can say nothing."""

    how: str = ""
    late: bool = False

    def streams(self, sizes: Any, local: Any, draw: Any) -> Any:
        if draw.client == CULPRIT and not self.late:
            self.fail()
        return super().streams(sizes, local, draw)

    def local_update(self, model: Any, state: Any, batches: Any, loss: Any, local: Any) -> Any:
        listed = {name: list(stream) for name, stream in batches.items()}
        first = listed["train"][0].data["x"][0, 0]
        if self.late and int((float(first) + 1) * 79 / 40) == CULPRIT:  # on vmap float raises: the loop takes over
            self.fail()
        return super().local_update(model, state, listed, loss, local)

    def fail(self) -> None:
        if self.how == "killed":
            os.kill(os.getpid(), signal.SIGKILL)
        elif self.how == "leaves":
            os._exit(0)
        elif self.how == "hangs":
            sleep(60)


@pytest.mark.parametrize("engine", ["loop", "vmap"])
def test_a_block_has_the_bits_of_this_process(engine: str, tmp_path: Path) -> None:
    plain = go(tmp_path / "plain", FedAvg(), engine)
    watched = go(tmp_path / "watched", FedAvg(), engine, client_timeout=60)
    assert plain.summary["digest"] == watched.summary["digest"] and not watched.summary["bits_changed"]
    one, other = (outcome.log.clients.drop(columns=["seconds", "worker"]) for outcome in (plain, watched))
    assert one.equals(other)


@pytest.mark.parametrize(
    "engine, how, late, said",
    [
        ("loop", "hangs", True, "no result within 1.5 s"),
        ("vmap", "hangs", False, "no result within 1.5 s"),
        ("loop", "killed", False, "its process was killed by signal 9"),
        ("loop", "leaves", True, "its process ended with exit code 0"),
    ],
)
def test_a_client_without_an_end_is_its_own_failure(
    engine: str, how: str, late: bool, said: str, tmp_path: Path
) -> None:
    """The others' mean is that of a run in which client 2 raises."""
    settings = {"client_timeout": LIMIT_S, "failures": "tolerate:0.25", "rounds": 1}
    outcome = go(tmp_path, Fails(how=how, late=late), engine, **settings)
    failed = outcome.log.clients.query("status == 'failed'")
    assert failed["client"].tolist() == [CULPRIT] and said in failed["reason"].item()
    told = outcome.log.events.query("event in ('client_timeout', 'client_died')")
    assert told[["event", "client"]].values.tolist() == [
        ["client_timeout" if how == "hangs" else "client_died", CULPRIT]
    ]
    assert outcome.summary["bits_changed"] and outcome.summary["status"] == "completed"
    raising = go(tmp_path / "raising", Raises(), engine, failures="tolerate:0.25", rounds=1)
    for name, value in raising.model.items():
        torch.testing.assert_close(outcome.model[name], value)


@dataclass
class Raises(Fails):
    """Client 2 raises."""

    def fail(self) -> None:
        raise ArithmeticError


@dataclass
class Slow(FedAvg):
    """Each client takes 0.9 s: on the loop after the one before it, or before its block trains."""

    early: bool = False

    def streams(self, sizes: Any, local: Any, draw: Any) -> Any:
        if draw.server_round:  # 0 where only the number of steps is asked for
            sleep(0.9 * self.early)
        return super().streams(sizes, local, draw)

    def local_update(self, *args: Any) -> Any:
        sleep(0.9 * (not self.early))
        return super().local_update(*args)


@pytest.mark.parametrize("early", [False, True])
def test_the_limit_is_that_of_a_client(early: bool, tmp_path: Path) -> None:
    """Two clients of a block take 1.8 s; where it cannot be told which of them does, each is tried alone."""
    outcome = go(tmp_path, Slow(early=early), client_timeout=LIMIT_S, rounds=1, cohort=2)
    assert outcome.log.clients["status"].tolist() == ["completed"] * 2
    assert outcome.summary["bits_changed"] == early == ("fallback" in outcome.log.events["event"].tolist())


def test_a_client_that_hangs_fails_a_run_that_tolerates_none(tmp_path: Path) -> None:
    with pytest.raises(RoundFailed, match=r"client 2, train: no result within 1.5 s \(client_timeout\)"):
        go(tmp_path, Fails(how="hangs"), client_timeout=LIMIT_S, block_size=1)
    [folder] = tmp_path.glob("*/summary.json")
    assert load(folder.parent).summary["status"] == "failed"


def test_each_beat_gives_more_time() -> None:
    def work(beat: Any) -> str:
        for _ in range(4):
            sleep(0.2)
            beat()
        return "done"

    assert call_forked(work, 0.3) == "done"


def test_a_forked_process_has_as_many_threads() -> None:
    """OpenMP's threads of this process are not in a forked one, which would wait for them without end."""
    a = torch.randn(600, 600)
    torch.set_num_threads(2)
    try:
        expected = (a @ a).sum().item()
        assert call_forked(lambda beat: ((a @ a).sum().item(), torch.get_num_threads()), 20) == (expected, 2)
    finally:
        torch.set_num_threads(1)


def test_what_a_forked_process_raises_is_told() -> None:
    with pytest.raises(RuntimeError, match="ZeroDivisionError"):
        call_forked(lambda beat: 1 / 0, 5)


def test_the_limit_is_in_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    assert isinstance(call_forked(lambda beat: time.sleep(60), 0.05), Lost)
