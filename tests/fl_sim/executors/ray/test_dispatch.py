"""Handing out work, on a clock of its own: order, window, speeds, deaths."""

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fl_sim.errors import RoundFailed
from fl_sim.executors.ray.dispatch import TRIES, Dispatch, Lost, Work


class Clockwork:
    """A team in virtual time: each worker does its pieces one after another, at its own speed. Some pieces kill."""

    def __init__(self, seconds: Sequence[float], deadly: dict[str, int] | None = None) -> None:
        self.seconds = dict(enumerate(seconds))
        self.deadly = dict(deadly or {})
        self.time, self.tickets, self.free = 0.0, 0, defaultdict(float)
        self.ends: dict[int, tuple[float, int, Work]] = {}
        self.started: list[tuple[str, int]] = []
        self.out: dict[str, int] = {}
        self.done: set[str] = set()
        self.most = 0

    def ready(self) -> Sequence[int]:
        return list(self.seconds)

    def send(self, worker: int, work: Work) -> int:
        begin = max(self.time, self.free[worker])
        self.free[worker] = begin + work.cost * self.seconds[worker]
        self.tickets += 1
        self.ends[self.tickets] = self.free[worker], worker, work
        self.started.append((work.name, worker))
        self.out[work.name] = worker
        self.most = max(self.most, len(self.out))
        return self.tickets

    def wait(self, tickets: Sequence[int], block: bool) -> Sequence[int]:
        if block:
            self.time = max(self.time, min(self.ends[ticket][0] for ticket in tickets))
        return [ticket for ticket in tickets if self.ends[ticket][0] <= self.time]

    def result(self, ticket: int) -> tuple[Any, float]:
        _, worker, work = self.ends[ticket]
        if self.deadly.get(work.name, 0):
            self.deadly[work.name] -= 1
            raise Lost("killed")
        self.done.add(work.name)
        return work.name, work.cost * self.seconds[worker]

    def lose(self, worker: int) -> dict[str, Any]:
        self.out = {name: who for name, who in self.out.items() if who != worker or name in self.done}
        speed = self.seconds.pop(worker)
        self.seconds[max([worker, *self.seconds], default=0) + 100] = speed  # another takes its place
        return {"node": "here"}

    def cancel(self, ticket: int) -> None: ...

    def clock(self) -> float:
        return self.time


def work(costs: Sequence[float]) -> list[Work]:
    return [Work(lambda worker: None, cost, f"piece {i}", block=i) for i, cost in enumerate(costs)]


def run(team: Clockwork, costs: Sequence[float], dispatch: Dispatch | None = None) -> Dispatch:
    """One batch; checks that results come in order."""
    dispatch = dispatch or Dispatch(team)
    seen = []
    for value in dispatch.run("train", work(costs)):
        seen.append(value)
        del team.out[value]
    assert seen == [f"piece {i}" for i in range(len(costs))]
    return dispatch


@settings(deadline=None)
@given(
    costs=st.lists(st.floats(1, 20), max_size=40),
    seconds=st.lists(st.floats(0.1, 10), min_size=1, max_size=5),
    deadly=st.dictionaries(st.integers(0, 39), st.integers(1, TRIES - 1), max_size=3),
)
def test_results_come_in_order_whatever_happens(
    costs: list[float], seconds: list[float], deadly: dict[int, int]
) -> None:
    team = Clockwork(seconds, {f"piece {i}": times for i, times in deadly.items()})
    dispatch = run(team, costs)
    assert team.most <= 2 * len(seconds)  # started and not yet handed on
    assert dispatch.restarts == sum(times for i, times in deadly.items() if i < len(costs))


def test_workers_of_one_speed_share_and_never_wait() -> None:
    team = Clockwork([1.0, 1.0])
    dispatch = run(team, [1.0] * 40)
    assert team.time == 20.0 and dispatch.idle_share == 0.0
    assert [name for name, _ in team.started] == [f"piece {i}" for i in range(40)]


def test_a_slow_worker_gets_what_it_can_finish_in_time() -> None:
    """One worker takes 1 s a unit, the other 8: together 9/8 units a second, so 45 units take 40 s at best."""
    team = Clockwork([1.0, 8.0])
    dispatch = run(team, [1.0] * 8)  # learns the speeds
    assert dispatch.pace[1, "train"] == 8.0
    begun, team.started = team.time, []
    run(team, [1.0] * 45, dispatch)
    slow = [name for name, worker in team.started if worker == 1]
    assert len(slow) == 5 and slow[0] != "piece 0"  # a later piece, early on: nobody waits for it
    assert team.time - begun <= 42
    assert team.most <= 4


def test_the_last_big_piece_is_not_for_the_slow_one() -> None:
    team = Clockwork([1.0, 4.0])
    dispatch = run(team, [1.0] * 6)
    begun, team.started = team.time, []
    run(team, [10.0, 10.0], dispatch)
    assert {worker for _, worker in team.started} == {0} and team.time - begun == 20.0  # 40 with the slow one


def test_a_worker_that_turns_slow_gets_no_more_than_it_has() -> None:
    team = Clockwork([1.0, 1.0])
    dispatch = run(team, [1.0] * 4)
    team.seconds[1], team.started = 50.0, []
    run(team, [1.0] * 20, dispatch)
    assert [worker for _, worker in team.started].count(1) <= 2


def test_a_worker_that_dies_takes_nothing_with_it_and_the_log_says_so() -> None:
    events: list[dict[str, Any]] = []
    team = Clockwork([1.0, 1.0], {"piece 2": 2})
    dispatch = Dispatch(team, lambda kind, **facts: events.append({"event": kind, **facts}))
    run(team, [1.0] * 8, dispatch)
    assert dispatch.restarts == 2 and dispatch.retries >= 2  # the piece twice, and what else these workers had waiting
    told = {"event": "worker_lost", "node": "here", "block": 2, "reason": "killed"}
    assert [{k: v for k, v in e.items() if k != "worker"} for e in events] == [
        {**told, "attempt": 1},
        {**told, "attempt": 2},
    ]


def test_a_piece_that_kills_three_workers_fails_by_its_name() -> None:
    with pytest.raises(RoundFailed, match="piece 1: 3 workers died over it, the last one because: killed"):
        run(Clockwork([1.0, 1.0], {"piece 1": 3}), [1.0] * 4)


def test_a_piece_that_only_waited_where_a_worker_died_has_not_killed_it() -> None:
    """Piece 1 waits behind piece 0 when that kills its worker, and then kills two itself: two deaths over each, not three."""
    dispatch = run(Clockwork([1.0], {"piece 0": 1, "piece 1": 2}), [1.0] * 3)
    assert dispatch.restarts == 3


def test_a_batch_that_is_dropped_is_cancelled() -> None:
    team, cancelled = Clockwork([1.0]), []
    team.cancel = cancelled.append  # type: ignore[method-assign]
    results = Dispatch(team).run("train", work([1.0] * 5))
    assert next(results) == "piece 0"
    results.close()
    assert len(cancelled) == 1  # one was done and handed on, one under way
