"""A clock of events: clients are started one by one, and are done at instants of their own.

All durations are drawn when a client starts, so that the order of events is known before anybody trains. A draw has a
number, which counts on through the run and keys it; draws are made some hundred at a time, because NumPy takes as long
for one as for many. Nothing here takes time in proportion to the number of registered clients, unless nearly all of
them are in flight.

Legend: N clients that may train, n draws.
"""

import heapq
import math
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from fl_sim import rng
from fl_sim.errors import RoundFailed
from fl_sim.population.devices import LONGEST, SECOND, Devices, Work, check_time

AHEAD = 256
"""Draws that are made at a time."""
TRIES = 64
"""Draws that may meet clients in flight, or devices that are away, before all idle clients are looked at."""
DENSE = 8
"""Where less than one client in so many is idle, all idle clients are looked at for each draw."""


class Flight(NamedTuple):
    """One launch of a client."""

    number: int
    """Of its draw."""
    client: int
    begin: int
    """Nanoseconds of virtual time."""
    end: int
    """When it is done, or vanishes."""
    vanishes: bool
    """Whether the device vanishes at ``end`` and never answers."""
    speed_class: int
    down: int = 0
    """Nanoseconds from ``begin`` until the model was there."""
    up: int = 0
    """Nanoseconds from the end of its work to ``end``."""
    samples: int = 0
    """Samples that it has trained on by ``end``."""


class _Drawn(NamedTuple):
    """A draw before it is used: which client would start, and how long it would take."""

    number: int
    client: int
    took: int
    vanishes: bool
    speed_class: int
    down: int
    up: int
    samples: int


class EventClock:
    """Who is in flight, and when each of them is done.

    Parameters
    ----------
    devices : Devices
        How long clients take, and when their devices are there.
    clients : Sequence[int]
        The ids (N,) of the clients that may train, ascending; a range costs nothing, whatever N.
    work : Callable[[np.ndarray], Work]
        The work of a launch of each of these client ids.
    seed : int
        Keys the draws of clients.
    """

    def __init__(self, devices: Devices, clients: Sequence[int], work: Callable[[np.ndarray], Work], seed: int) -> None:
        self.devices, self.clients, self.work = devices, clients, work
        self.now = 0
        """Nanoseconds since the run began."""
        self.drawn = 0
        """The number of the next draw."""
        self.in_flight: dict[int, Flight] = {}
        """Client id -> its launch, in the order of starts."""
        self._drawn_from = rng.key(seed, "start")
        self._heap: list[tuple[int, int]] = []
        self._ahead: deque[_Drawn] = deque()
        self._wake = math.inf
        """When a device comes that a start waits for."""
        self._worked, self._worked_since = 0, 0
        """Nanoseconds of all devices' work since the instant that ``idle`` was asked at, and that instant."""
        self._away: list[int] = []
        """When clients begin who are in flight, and whose devices are away."""

    # Starts ---------------------------------------------------------------------------------------------------------

    def start(self, count: int) -> list[Flight]:
        """Start ``count`` clients now, drawn by key, uniformly among the idle ones whose devices are there.

        Fewer where no more are there; ``next`` then stops when one comes.
        """
        self._wake, started = math.inf, list[Flight]()
        while len(started) < count and (drawn := self._draw()) is not None:
            started.append(self._launch(drawn))
        return started

    def start_these(self, clients: Sequence[int]) -> list[Flight]:
        """Start these idle clients; one whose device is away begins when it comes."""
        if not clients:
            return []
        ids = np.asarray(clients, np.int64)
        begins = np.full(len(ids), self.now) if self.devices.always else self.devices.comes(ids, self.now)
        if (begins >= LONGEST).any():
            lost = int(ids[(begins >= LONGEST).argmax()])
            raise RoundFailed(f"client {lost}: its device is not there any more after {self.now / SECOND:g} virtual s")
        numbers = self._take(len(ids))
        return [self._launch(drawn, int(begin)) for drawn, begin in zip(self._timed(numbers, ids), begins, strict=True)]

    def _launch(self, drawn: _Drawn, begin: int | None = None) -> Flight:
        begin = self.now if begin is None else begin
        flight = Flight(drawn.number, drawn.client, begin, begin + drawn.took, *drawn[3:])
        self.in_flight[flight.client] = flight
        if begin > self.now:
            self._away.append(begin)
        heapq.heappush(self._heap, (flight.end, flight.client))
        return flight

    def _draw(self) -> _Drawn | None:
        """The next draw of an idle client whose device is there; None where there is none, and ``_wake`` is set."""
        idle = len(self.clients) - len(self.in_flight)
        if idle <= 0:
            return None
        for _ in range(TRIES if idle * DENSE > len(self.clients) else 0):
            if not self._ahead:
                self._look_ahead()
            drawn = self._ahead.popleft()
            self.drawn = drawn.number + 1
            if drawn.client not in self.in_flight and self._there(drawn.client):
                return drawn
        return self._draw_of_few()

    def _there(self, client: int) -> bool:
        return self.devices.always or bool(self.devices.available(np.array([client]), self.now)[0])

    def _draw_of_few(self) -> _Drawn | None:
        """``_draw`` among all idle clients, which takes time in proportion to N."""
        ids = np.asarray(self.clients, np.int64)
        idle = ids[~np.isin(ids, np.fromiter(self.in_flight, np.int64, len(self.in_flight)))]
        there = idle if self.devices.always else idle[self.devices.available(idle, self.now)]
        if not len(there):
            soonest = int(self.devices.comes(idle, self.now).min())
            self._wake = soonest if soonest < LONGEST else math.inf
            return None
        [number] = self._take(1)
        word = int(rng.subkeys(np.array([self._drawn_from], np.uint64), np.array([number]))[0])
        chosen = there[word * len(there) >> 64]
        return self._timed(np.array([number]), np.array([chosen]))[0]

    def _take(self, count: int) -> np.ndarray:
        """The numbers (n,) of the next draws; draws that were made ahead with these are dropped."""
        first, self.drawn = self.drawn, self.drawn + count
        while self._ahead and self._ahead[0].number < self.drawn:
            self._ahead.popleft()
        return np.arange(first, first + count)

    def _look_ahead(self) -> None:
        numbers = np.arange(self.drawn, self.drawn + AHEAD)
        words = rng.subkeys(np.array([self._drawn_from], np.uint64), numbers).tolist()
        chosen = [self.clients[word * len(self.clients) >> 64] for word in words]
        self._ahead.extend(self._timed(numbers, np.array(chosen, np.int64)))

    def _timed(self, numbers: np.ndarray, clients: np.ndarray) -> list[_Drawn]:
        """The draws with these numbers (n,), of these clients (n,)."""
        work = self.work(clients)
        took = self.devices.durations(work, numbers)
        gone = took.vanishes >= 0
        length = np.where(gone, took.vanishes, took.total)
        messages = took.messages(length)
        samples = (took.trained(length) * work.samples).astype(np.int64)
        columns = (x.tolist() for x in (numbers, clients, length, gone, took.speed_class, *messages, samples))
        return [_Drawn(*row) for row in zip(*columns, strict=True)]

    # Ends -----------------------------------------------------------------------------------------------------------

    def next(self) -> list[Flight]:
        """Move to the next instant: those who are done then, by client id; none where a device comes before.

        Raises RoundFailed where nothing will ever happen.
        """
        end = self._heap[0][0] if self._heap else math.inf
        if math.isinf(end) and math.isinf(self._wake):
            when = f"after {self.now / SECOND:g} virtual seconds"
            raise RoundFailed(f"{when} no client is in flight, and no device comes any more")
        if self._wake < end:
            self._move(int(self._wake))
            self._wake = math.inf
            return []
        self._move(int(end))
        done = list[Flight]()
        while self._heap and self._heap[0][0] == end:
            done.append(self.in_flight.pop(heapq.heappop(self._heap)[1]))
        return done

    def _move(self, to: int) -> None:
        check_time(to)
        self._worked += (to - self.now) * len(self.in_flight)
        if self._away:
            self._worked -= sum(min(begin, to) - self.now for begin in self._away)
            self._away = [begin for begin in self._away if begin > to]
        self.now = to

    def idle(self, places: int) -> float | None:
        """Of the time of ``places`` clients since this was asked last, the share in which no device works.

        None where no time has gone by.
        """
        whole, worked = (self.now - self._worked_since) * places, self._worked
        self._worked, self._worked_since = 0, self.now
        return 1 - worked / whole if whole else None

    # Checkpoints ----------------------------------------------------------------------------------------------------

    def state(self) -> dict[str, Any]:
        """Where the clock stands, as plain values: what ``restore`` takes."""
        wake, flights = None if math.isinf(self._wake) else int(self._wake), map(list, self.in_flight.values())
        return {"now": self.now, "drawn": self.drawn, "wake": wake, "flights": list(flights)}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on where a clock stood."""
        self.now, self.drawn = int(state["now"]), int(state["drawn"])
        self._wake = math.inf if state["wake"] is None else int(state["wake"])
        self.in_flight = {flight.client: flight for flight in (Flight(*row) for row in state["flights"])}
        self._heap = [(flight.end, flight.client) for flight in self.in_flight.values()]
        heapq.heapify(self._heap)
        self._ahead.clear()
        self._worked, self._worked_since = 0, self.now  # a checkpoint is of an instant at which ``idle`` was asked
        self._away = [flight.begin for flight in self.in_flight.values() if flight.begin > self.now]
