"""What a round takes: the server's time without the time in which it waits for replies, and memory."""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest

from fl_sim.rounds.measured import round_work
from fl_sim.rounds.measured.round_work import RoundWork, memory


class Clock:
    """A clock that goes on only where a test says so."""

    now = 0.0

    def perf_counter(self) -> float:
        return self.now


def test_waiting_for_replies_is_no_pooling(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock()
    monkeypatch.setattr(round_work, "time", clock)

    def replies() -> Iterator[Any]:
        for _ in range(3):
            clock.now += 10  # a client trains
            yield object()
        clock.now += 5

    def hook(name: str, given: Iterable[Any]) -> str:
        for _ in given:
            clock.now += 1  # a reply is merged
        clock.now += 2  # the server's step
        return name

    work = RoundWork()
    assert work.pooled(hook, replies()) == "aggregate_train" and work.columns() == {"pool_seconds": 5.0}
    listed = RoundWork()
    assert listed.pooled(lambda name, given: type(given), [1]) is list  # type: ignore[list-item]


def test_memory_is_that_of_this_process_where_the_system_tells_it(monkeypatch: pytest.MonkeyPatch) -> None:
    found = memory()["rss_mb"]
    assert isinstance(found, float) and 50 < found < 50_000
    monkeypatch.setattr(round_work, "STATM", Path("/nowhere/statm"))
    assert "rss_mb" not in memory()


def test_memory_is_read_once_in_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [0.0]
    monkeypatch.setattr(round_work.time, "monotonic", lambda: clock[0])
    monkeypatch.setattr(round_work, "memory", lambda: {"rss_mb": clock[0]})
    seldom, always = round_work.Memory(0.1), round_work.Memory()
    assert [seldom(), always()] == [{"rss_mb": 0.0}] * 2
    clock[0] = 0.05
    assert [seldom(), always()] == [{"rss_mb": 0.0}, {"rss_mb": 0.05}]
    clock[0] = 0.1
    assert seldom() == {"rss_mb": 0.1}
