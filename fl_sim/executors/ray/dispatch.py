"""Hands work items to workers of unequal speed and yields the results in a fixed order.

The seconds that each worker needs for a unit of cost are measured as it works. An item goes to the worker that is
expected to finish it first, given that all earlier items are assigned in the same way (list scheduling: Graham, "Bounds
on Multiprocessing Timing Anomalies", SIAM J. Appl. Math. 1969). So a slow worker gets a later item early, and never the
last large one. The schedule decides who computes an item, and never what the result is.

Legend: W workers that are ready.
"""

import math
from collections import defaultdict, deque
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass, field
from typing import Any

from fl_sim.errors import RoundFailed
from fl_sim.executors.ray.work_items import TIMED_OUT, WorkerLost, Workers, WorkItem

MAX_ATTEMPTS = 3
"""An item fails the round when this many workers have died while they computed it."""
MAX_QUEUED = 2
"""Items that a worker holds at most: one that it computes, and a second one so that it need not wait for the driver."""
LOOK_AHEAD = 32
"""Items per worker that are assigned in advance when the next item of each worker is chosen."""
PACE_WEIGHT = 0.3
"""Weight of the latest measurement in the moving average of a worker's pace."""


@dataclass
class _InFlight:
    index: int
    future: object


@dataclass
class Dispatch:
    """Hands out work items to workers, over many rounds."""

    workers: Workers
    on_event: Callable[..., None] = lambda kind, **facts: None
    retries: int = 0
    """Items that were handed out again."""
    restarts: int = 0
    """Workers that were lost."""
    busy_s: float = 0.0
    available_s: float = 0.0
    """Seconds of all ready workers, summed while items were in flight; they computed for ``busy_s`` of them."""
    pace: dict[tuple[int, str], float] = field(default_factory=dict)
    """(worker, kind of work) -> seconds for a unit of cost, a moving average."""

    @property
    def idle_share(self) -> float:
        """The fraction of the workers' time in which they waited."""
        return max(0.0, 1 - self.busy_s / self.available_s) if self.available_s else 0.0

    def run(self, kind: str, items: Sequence[WorkItem]) -> Generator[Any, None, None]:
        """Yield the results in the order of ``items``. At most 2 W items are started and not yet yielded.

        Raises RoundFailed that names an item over which ``MAX_ATTEMPTS`` workers died.
        """
        batch = _Batch(self, kind, items)
        try:
            for index in range(len(items)):
                batch.next_index = index
                batch.start()
                while index not in batch.done:
                    batch.collect(block=True)
                    batch.start()
                batch.collect(block=False)
                batch.start()
                yield batch.done.pop(index)
        finally:
            for queue in batch.in_flight.values():
                for sent in queue:
                    self.workers.cancel(sent.future)

    def record_pace(self, worker: int, kind: str, pace: float) -> None:
        """Update the moving average with one measurement."""
        old = self.pace.get((worker, kind), pace)
        self.pace[worker, kind] = old + PACE_WEIGHT * (pace - old)


class _Batch:
    """The state of one call of ``Dispatch.run``: items that wait, are in flight, or are done."""

    def __init__(self, dispatch: Dispatch, kind: str, items: Sequence[WorkItem]) -> None:
        self.dispatch, self.workers, self.kind, self.items = dispatch, dispatch.workers, kind, list(items)
        self.owner: dict[int, int] = {}
        """Part of an item that was split -> that item."""
        self.parts: dict[int, dict[int, object]] = {}
        """An item that was split -> its parts, with their results once these are known."""
        self.waiting = list(range(len(items)))
        self.in_flight: dict[int, deque[_InFlight]] = defaultdict(deque)
        """Worker -> the items that it holds, the one that it computes first."""
        self.started_at: dict[int, float] = {}
        """Worker -> when it began the item that it computes."""
        self.done: dict[int, object] = {}
        self.next_index = 0
        """The item whose result is yielded next."""
        self.now = self.workers.clock()

    def start(self) -> None:
        """Hand out as many items as possible.

        The item that is yielded next may always start, even where the limit is reached: all others would wait for it.
        """
        while self.waiting:
            ready = list(self.workers.ready())
            first = self.whole(self.waiting[0]) == self.next_index
            free = MAX_QUEUED * len(ready) - len(self.done) - sum(map(len, self.in_flight.values()))
            assigned = self.assign(ready)
            for worker, index in assigned.items():
                if self.has_room_for(worker, index) and (self.whole(index) == self.next_index or free > first):
                    self.send(worker, index)
                    break
            else:
                return

    def assign(self, ready: Sequence[int]) -> dict[int, int]:
        """Worker -> the item that it should get next, in the order of items."""
        paces = {worker: self.pace(worker) for worker in ready}
        until = {worker: self.seconds_left(worker, paces[worker]) for worker in ready}
        assigned: dict[int, int] = {}
        for index in self.waiting[: LOOK_AHEAD * len(ready)]:
            cost = self.items[index].cost
            worker = min(ready, key=lambda w: (until[w] + cost * paces[w], w))
            until[worker] += cost * paces[worker]
            assigned.setdefault(worker, index)
        return assigned

    def has_room_for(self, worker: int, index: int) -> bool:
        """Whether an item may be queued at a worker."""
        held = [self.items[sent.index] for sent in self.in_flight[worker]]
        return len(held) < MAX_QUEUED and not (held and (held[0].exclusive or self.items[index].exclusive))

    def pace(self, worker: int) -> float:
        """Seconds for a unit of cost.

        The worker's moving average, or the mean over all workers while it has none; never less than what its current
        item has already taken. 1 before the first measurement of this kind of work.
        """
        known = self.dispatch.pace
        others = [pace for (_, kind), pace in known.items() if kind == self.kind]
        if not others:
            return 1.0
        pace = known.get((worker, self.kind), sum(others) / len(others))
        queue = self.in_flight[worker]
        if not queue:
            return pace
        return max(pace, (self.workers.clock() - self.started_at[worker]) / self.items[queue[0].index].cost)

    def seconds_left(self, worker: int, pace: float) -> float:
        """Expected seconds until a worker has computed the items that it holds."""
        expected = [self.items[sent.index].cost * pace for sent in self.in_flight[worker]]
        if not expected:
            return 0.0
        known = any(kind == self.kind for _, kind in self.dispatch.pace)
        elapsed = self.workers.clock() - self.started_at[worker] if known else 0.0
        return max(expected[0] - elapsed, 0.0) + sum(expected[1:])

    def send(self, worker: int, index: int) -> None:
        """Send an item to a worker."""
        if not self.in_flight[worker]:
            self.started_at[worker] = self.workers.clock()
        self.in_flight[worker].append(_InFlight(index, self.workers.send(worker, self.items[index])))
        self.waiting.remove(index)

    def collect(self, block: bool) -> None:
        """Store the results that have arrived, and handle workers that were lost."""
        current = {queue[0].future: worker for worker, queue in self.in_flight.items() if queue}
        num_ready = len(self.workers.ready())
        limits = [self.time_left(worker) for worker in current.values()]
        done = self.workers.wait(list(current), block, max(min(limits, default=math.inf), 0.0))
        now = self.workers.clock()
        self.dispatch.available_s += (now - self.now) * num_ready
        self.now = now
        for future in done:
            worker = current[future]
            sent = self.in_flight[worker][0]
            try:
                value, seconds = self.workers.result(future)
            except WorkerLost as lost:
                self.requeue(worker, str(lost))
                continue
            except RoundFailed as error:
                raise RoundFailed(f"{self.items[sent.index].name}: {error}") from error
            self.in_flight[worker].popleft()
            self.store(sent.index, value)
            self.started_at[worker] = now
            self.dispatch.busy_s += seconds
            self.dispatch.record_pace(worker, self.kind, seconds / self.items[sent.index].cost)
        for worker in [worker for worker in current.values() if self.time_left(worker) <= 1e-9]:
            self.end(worker)

    def whole(self, index: int) -> int:
        """The item that ``index`` is a part of, or is itself."""
        return self.owner.get(index, index)

    def queue_again(self, indices: Sequence[int]) -> None:
        """Let items wait for a worker, in the order of results."""
        self.waiting = sorted([*self.waiting, *indices], key=lambda index: (self.whole(index), index))

    def store(self, index: int, value: object) -> None:
        """Keep a result; that of an item that was split once all its parts are done."""
        whole = self.whole(index)
        if whole == index:
            self.done[index] = value
            return
        self.parts[whole][index] = value
        if None not in self.parts[whole].values():
            self.done[whole] = list(self.parts.pop(whole).values())

    def time_left(self, worker: int) -> float:
        """Seconds until the item that a worker computes takes too long."""
        queue = self.in_flight[worker]
        if not queue:
            return math.inf
        return self.items[queue[0].index].limit_s - (self.workers.clock() - self.started_at[worker])

    def end(self, worker: int) -> None:
        """End a worker whose item takes too long, and split the item; what was queued behind it waits again."""
        first, *behind = [sent.index for sent in self.in_flight.pop(worker)]
        item = self.items[first]
        self.dispatch.restarts += 1
        facts = self.workers.replace(worker)
        reason = f"{item.name}: no result within {item.limit_s:g} s"
        self.dispatch.on_event("client_timeout", worker=worker, **facts, block=item.block, reason=reason)
        if item.split is None:
            self.queue_again(behind)
            return self.store(first, TIMED_OUT)
        new = list(item.split())
        numbers = range(len(self.items), len(self.items) + len(new))
        self.items += new
        self.owner |= dict.fromkeys(numbers, first)
        self.parts[first] = dict.fromkeys(numbers)
        self.queue_again([*behind, *numbers])

    def requeue(self, worker: int, reason: str) -> None:
        """Put the items of a dead worker back into the queue, each exclusive from now on.

        Most likely the worker died over the first item that it held, unless it had just finished that one.
        """
        indices = [sent.index for sent in self.in_flight.pop(worker)]
        self.queue_again(indices)
        item = self.items[indices[0]]
        item.attempts += 1
        for index in indices:
            self.items[index].exclusive = True
        self.dispatch.retries += len(indices)
        self.dispatch.restarts += 1
        facts = self.workers.replace(worker)
        self.dispatch.on_event(
            "worker_lost", worker=worker, **facts, block=item.block, attempt=item.attempts, reason=reason
        )
        if item.attempts >= MAX_ATTEMPTS:
            raise RoundFailed(f"{item.name}: {item.attempts} workers died over it, the last one because: {reason}")
