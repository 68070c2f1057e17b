"""Dispatch of work items in virtual time: order of results, items in flight, speeds of workers, deaths of workers."""

import math
from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fl_sim.errors import RoundFailed
from fl_sim.executors.ray.dispatch import MAX_ATTEMPTS, Dispatch
from fl_sim.executors.ray.work_items import TIMED_OUT, WorkerLost, WorkItem


class SimulatedWorkers:
    """Workers in virtual time: each computes its items one after another, at its own speed.

    ``seconds``: for a unit of cost, by worker. ``deadly``: name of an item -> how many workers die over it.
    """

    def __init__(self, seconds: Sequence[float], deadly: dict[str, int] | None = None) -> None:
        self.seconds = dict(enumerate(seconds))
        self.deadly = dict(deadly or {})
        self.time, self.sent, self.free = 0.0, 0, defaultdict(float)
        self.ends: dict[int, tuple[float, int, WorkItem]] = {}
        self.started: list[tuple[str, int]] = []
        self.in_flight: dict[str, int] = {}
        self.done: set[str] = set()
        self.most_in_flight = 0

    def ready(self) -> Sequence[int]:
        return list(self.seconds)

    def send(self, worker: int, item: WorkItem) -> int:
        begin = max(self.time, self.free[worker])
        self.free[worker] = begin + item.cost * self.seconds[worker]
        self.sent += 1
        self.ends[self.sent] = self.free[worker], worker, item
        self.started.append((item.name, worker))
        self.in_flight[item.name] = worker
        self.most_in_flight = max(self.most_in_flight, len(self.in_flight))
        return self.sent

    def wait(self, futures: Sequence[int], block: bool, limit_s: float = math.inf) -> Sequence[int]:
        if block:
            until = min(self.ends[future][0] for future in futures)
            self.time = max(self.time, min(until, self.time + limit_s))
        return [future for future in futures if self.ends[future][0] <= self.time]

    def result(self, future: int) -> tuple[Any, float]:
        _, worker, item = self.ends[future]
        if self.deadly.get(item.name, 0):
            self.deadly[item.name] -= 1
            raise WorkerLost("killed")
        self.done.add(item.name)
        return item.name, item.cost * self.seconds[worker]

    def replace(self, worker: int) -> dict[str, Any]:
        self.in_flight = {
            name: holder for name, holder in self.in_flight.items() if holder != worker or name in self.done
        }
        speed = self.seconds.pop(worker)
        self.seconds[max([worker, *self.seconds], default=0) + 100] = speed  # a new worker of the same speed
        return {"node": "here"}

    def cancel(self, future: int) -> None: ...

    def clock(self) -> float:
        return self.time


def items(costs: Sequence[float]) -> list[WorkItem]:
    return [WorkItem(lambda worker: None, cost, f"item {i}", block=i) for i, cost in enumerate(costs)]


def run(workers: SimulatedWorkers, costs: Sequence[float], dispatch: Dispatch | None = None) -> Dispatch:
    """One batch; checks that results come in order."""
    dispatch = dispatch or Dispatch(workers)
    seen = []
    for value in dispatch.run("train", items(costs)):
        seen.append(value)
        del workers.in_flight[value]
    assert seen == [f"item {i}" for i in range(len(costs))]
    return dispatch


@settings(deadline=None)
@given(
    costs=st.lists(st.floats(1, 20), max_size=40),
    seconds=st.lists(st.floats(0.1, 10), min_size=1, max_size=5),
    deadly=st.dictionaries(st.integers(0, 39), st.integers(1, MAX_ATTEMPTS - 1), max_size=3),
)
def test_results_come_in_order_whatever_workers_do(
    costs: list[float], seconds: list[float], deadly: dict[int, int]
) -> None:
    workers = SimulatedWorkers(seconds, {f"item {i}": times for i, times in deadly.items()})
    dispatch = run(workers, costs)
    assert workers.most_in_flight <= 2 * len(seconds)  # started and not yet yielded
    assert dispatch.restarts == sum(times for i, times in deadly.items() if i < len(costs))


def test_workers_of_equal_speed_share_the_items_and_never_wait() -> None:
    workers = SimulatedWorkers([1.0, 1.0])
    dispatch = run(workers, [1.0] * 40)
    assert workers.time == 20.0 and dispatch.idle_share == 0.0
    assert [name for name, _ in workers.started] == [f"item {i}" for i in range(40)]


def test_a_slow_worker_gets_what_it_can_finish_in_time() -> None:
    """One worker takes 1 s for a unit, the other 8 s: together 9/8 units a second, so 45 units take at least 40 s."""
    workers = SimulatedWorkers([1.0, 8.0])
    dispatch = run(workers, [1.0] * 8)  # measures the speeds
    assert dispatch.pace[1, "train"] == 8.0
    begun, workers.started = workers.time, []
    run(workers, [1.0] * 45, dispatch)
    slow = [name for name, worker in workers.started if worker == 1]
    assert len(slow) == 5 and slow[0] != "item 0"  # a later item, which is not needed soon
    assert workers.time - begun <= 42
    assert workers.most_in_flight <= 4


def test_the_last_large_item_does_not_go_to_the_slow_worker() -> None:
    workers = SimulatedWorkers([1.0, 4.0])
    dispatch = run(workers, [1.0] * 6)
    begun, workers.started = workers.time, []
    run(workers, [10.0, 10.0], dispatch)
    assert {worker for _, worker in workers.started} == {
        0
    } and workers.time - begun == 20.0  # the slow worker would need 40


def test_a_worker_that_becomes_slow_gets_no_more_items() -> None:
    workers = SimulatedWorkers([1.0, 1.0])
    dispatch = run(workers, [1.0] * 4)
    workers.seconds[1], workers.started = 50.0, []
    run(workers, [1.0] * 20, dispatch)
    assert [worker for _, worker in workers.started].count(1) <= 2


def test_the_items_of_a_dead_worker_are_computed_again_and_its_death_is_logged() -> None:
    events: list[dict[str, Any]] = []
    workers = SimulatedWorkers([1.0, 1.0], {"item 2": 2})
    dispatch = Dispatch(workers, lambda kind, **facts: events.append({"event": kind, **facts}))
    run(workers, [1.0] * 8, dispatch)
    assert dispatch.restarts == 2 and dispatch.retries >= 2  # the item twice, and others that these workers held
    event = {"event": "worker_lost", "node": "here", "block": 2, "reason": "killed"}
    assert [{k: v for k, v in e.items() if k != "worker"} for e in events] == [
        {**event, "attempt": 1},
        {**event, "attempt": 2},
    ]


def test_an_item_that_kills_three_workers_fails_by_its_name() -> None:
    with pytest.raises(RoundFailed, match="item 1: 3 workers died over it, the last one because: killed"):
        run(SimulatedWorkers([1.0, 1.0], {"item 1": 3}), [1.0] * 4)


def test_an_item_that_only_waited_at_a_worker_is_not_blamed_for_its_death() -> None:
    """Item 1 waits behind item 0 when that kills its worker, and then kills two itself: no item has three deaths."""
    dispatch = run(SimulatedWorkers([1.0], {"item 0": 1, "item 1": 2}), [1.0] * 3)
    assert dispatch.restarts == 3


def test_items_in_flight_are_cancelled_when_the_results_are_no_longer_read() -> None:
    workers, cancelled = SimulatedWorkers([1.0]), []
    workers.cancel = cancelled.append  # type: ignore[method-assign]
    results = Dispatch(workers).run("train", items([1.0] * 5))
    assert next(results) == "item 0"
    results.close()
    assert len(cancelled) == 1  # one item was yielded, one is in flight


@settings(deadline=None)
@given(
    hangs=st.sets(st.integers(0, 11)), seconds=st.lists(st.floats(0.5, 2), min_size=1, max_size=3), share=st.booleans()
)
def test_an_item_that_takes_too_long_is_split_to_find_the_part_that_does(
    hangs: set[int], seconds: list[float], share: bool
) -> None:
    """Six items of two parts each; a part that hangs would take for ever, and so would its item."""
    workers, told = SimulatedWorkers(seconds), list[str]()

    def item(name: str, *parts: int) -> WorkItem:
        cost = 1e9 if hangs & set(parts) else 1.0 * len(parts)
        several = (lambda: [item(f"part {part}", part) for part in parts]) if len(parts) > 1 else None
        return WorkItem(lambda worker: None, cost, name, limit_s=3.0 * len(parts) if share else 6.0, split=several)

    dispatch = Dispatch(workers, lambda kind, **facts: told.append(f"{kind}: {facts['reason']}"))
    six = [item(f"item {i}", 2 * i, 2 * i + 1) for i in range(6)]
    found = list(dispatch.run("train", six))
    for i, value in enumerate(found):
        parts = [TIMED_OUT if part in hangs else f"part {part}" for part in (2 * i, 2 * i + 1)]
        assert value == (parts if hangs & {2 * i, 2 * i + 1} else f"item {i}")
    assert dispatch.restarts == len(told) == len(hangs) + len({part // 2 for part in hangs})
    assert all(line.startswith("client_timeout: ") and "no result within" in line for line in told)
