"""Work handed out to workers of unequal speed; results in a fixed order. No paper.

Each worker's seconds a unit of cost are learnt as it goes. Whoever would finish a piece first, all pieces before it
handed out likewise, is to take it (list scheduling: Graham, "Bounds on Multiprocessing Timing Anomalies", SIAM J. Appl.
Math. 1969); so a slow worker gets a later piece early on, and never the last big one. None of this touches results.

Legend: W workers that are ready.
"""

from collections import defaultdict, deque
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from fl_sim.errors import RoundFailed

TRIES = 3
"""So many workers may die over one piece of work."""
QUEUE = 2
"""Pieces a worker has at most: one under way, one that waits so that it never waits itself. One that was lost comes alone."""
AHEAD = 32
"""Pieces a worker that are thought ahead."""
NEWS = 0.3
"""Weight of the latest piece in a worker's learnt speed."""


class Lost(Exception):
    """The worker is gone, and with it the work that it had; says why."""


@dataclass
class Work:
    """One piece of work."""

    send: Callable[[Any], Any]
    """Hands it to a worker (whatever the team takes for one); returns a ticket for its result. May be called again."""
    cost: float
    """In any unit that is proportional to time: steps, samples."""
    name: str
    """For people: which block, of which clients."""
    block: int | None = None
    tries: int = 0
    """Workers that died over it."""
    alone: bool = False
    """A worker died that had it: from then on it shares a worker's queue with no other, so that the next death tells which it was."""


class Team(Protocol):
    """Workers, by number."""

    def ready(self) -> Sequence[int]:
        """W numbers of those that take work now."""

    def send(self, worker: int, work: Work) -> Any:
        """Hand over a piece; returns its ticket. A worker does its pieces in the order that it got them."""

    def wait(self, tickets: Sequence[Any], block: bool) -> Sequence[Any]:
        """The tickets that are done; with ``block``, not before one is or the team has changed. Raises RoundFailed without hope."""

    def result(self, ticket: Any) -> tuple[Any, float]:
        """(value, seconds that the worker took) of a done ticket. Raises Lost."""

    def lose(self, worker: int) -> dict[str, Any]:
        """Forget a lost worker, and start another where one can be; returns facts about it for the log."""

    def cancel(self, ticket: Any) -> None:
        """Its result is wanted no more."""

    def clock(self) -> float:
        """Seconds."""


@dataclass
class _Flight:
    place: int
    ticket: Any


@dataclass
class Dispatch:
    """Hands out work to a team, over many rounds."""

    team: Team
    on_event: Callable[..., None] = lambda kind, **facts: None
    retries: int = 0
    """Pieces that were handed out again."""
    restarts: int = 0
    """Workers that were lost."""
    busy_s: float = 0.0
    paid_s: float = 0.0
    """Seconds of all workers while there was work under way, of which ``busy_s`` they worked."""
    pace: dict[tuple[int, str], float] = field(default_factory=dict)
    """(worker, kind of work) -> seconds a unit of cost, a moving average."""

    @property
    def idle_share(self) -> float:
        """The share of the workers' time that they waited."""
        return max(0.0, 1 - self.busy_s / self.paid_s) if self.paid_s else 0.0

    def run(self, kind: str, works: Sequence[Work]) -> Generator[Any, None, None]:
        """The results in the order of ``works``. At most 2 W pieces are started and not yet handed on.

        Raises RoundFailed that names a piece over which ``TRIES`` workers died.
        """
        batch = _Batch(self, kind, works)
        try:
            for place in range(len(works)):
                batch.place = place
                batch.start()
                while place not in batch.done:
                    batch.collect(block=True)
                    batch.start()
                batch.collect(block=False)
                batch.start()
                yield batch.done.pop(place)
        finally:
            for flights in batch.flights.values():
                for flight in flights:
                    self.team.cancel(flight.ticket)

    def learn(self, worker: int, kind: str, pace: float) -> None:
        """Take in one measurement."""
        old = self.pace.get((worker, kind), pace)
        self.pace[worker, kind] = old + NEWS * (pace - old)


class _Batch:
    """One call of ``run``: what waits, what is under way, what is done."""

    def __init__(self, dispatch: Dispatch, kind: str, works: Sequence[Work]) -> None:
        self.dispatch, self.team, self.kind, self.works = dispatch, dispatch.team, kind, works
        self.waiting = list(range(len(works)))
        self.flights: dict[int, deque[_Flight]] = defaultdict(deque)
        self.since: dict[int, float] = {}
        """When each worker began what it does now."""
        self.done: dict[int, Any] = {}
        self.place = 0
        """The piece whose result is handed on next."""
        self.now = self.team.clock()

    def start(self) -> None:
        """Hand out what can be. The piece whose turn it is always may start, so that the rest never waits for it in vain."""
        while self.waiting:
            ready = list(self.team.ready())
            first = self.waiting[0] == self.place
            open_now = QUEUE * len(ready) - len(self.done) - sum(map(len, self.flights.values()))
            chosen = self.choose(ready)
            for worker, place in chosen.items():
                if self.takes(worker, place) and (place == self.place or open_now > first):
                    self.send(worker, place)
                    break
            else:
                return

    def choose(self, ready: Sequence[int]) -> dict[int, int]:
        """Worker -> the piece that it is to take next, in the order of pieces."""
        paces = {worker: self.pace(worker) for worker in ready}
        until = {worker: self.left(worker, paces[worker]) for worker in ready}
        chosen: dict[int, int] = {}
        for place in self.waiting[: AHEAD * len(ready)]:
            cost = self.works[place].cost
            worker = min(ready, key=lambda w: (until[w] + cost * paces[w], w))
            until[worker] += cost * paces[worker]
            chosen.setdefault(worker, place)
        return chosen

    def takes(self, worker: int, place: int) -> bool:
        """Whether a worker has room for a piece."""
        has = [self.works[flight.place] for flight in self.flights[worker]]
        return len(has) < QUEUE and not (has and (has[0].alone or self.works[place].alone))

    def pace(self, worker: int) -> float:
        """Seconds a unit of cost: as learnt, as the others take where it is new, and not less than what it does now already takes."""
        known = self.dispatch.pace
        others = [pace for (_, kind), pace in known.items() if kind == self.kind]
        if not others:
            return 1.0
        pace = known.get((worker, self.kind), sum(others) / len(others))
        flights = self.flights[worker]
        return (
            max(pace, (self.team.clock() - self.since[worker]) / self.works[flights[0].place].cost) if flights else pace
        )

    def left(self, worker: int, pace: float) -> float:
        """Seconds until a worker has done what it has."""
        costs = [self.works[flight.place].cost * pace for flight in self.flights[worker]]
        known = any(kind == self.kind for _, kind in self.dispatch.pace)
        return (
            max(costs[0] - (self.team.clock() - self.since[worker] if known else 0.0), 0.0) + sum(costs[1:])
            if costs
            else 0.0
        )

    def send(self, worker: int, place: int) -> None:
        if not self.flights[worker]:
            self.since[worker] = self.team.clock()
        self.flights[worker].append(_Flight(place, self.team.send(worker, self.works[place])))
        self.waiting.remove(place)

    def collect(self, block: bool) -> None:
        """Take in what is done, and who was lost."""
        heads = {flights[0].ticket: worker for worker, flights in self.flights.items() if flights}
        paid = len(self.team.ready())
        done = self.team.wait(list(heads), block)
        now = self.team.clock()
        self.dispatch.paid_s += (now - self.now) * paid
        self.now = now
        for ticket in done:
            worker = heads[ticket]
            flight = self.flights[worker][0]
            try:
                self.done[flight.place], seconds = self.team.result(ticket)
            except Lost as lost:
                self.lose(worker, str(lost))
                continue
            except RoundFailed as error:
                raise RoundFailed(f"{self.works[flight.place].name}: {error}") from error
            self.flights[worker].popleft()
            self.since[worker] = now
            self.dispatch.busy_s += seconds
            self.dispatch.learn(worker, self.kind, seconds / self.works[flight.place].cost)

    def lose(self, worker: int, reason: str) -> None:
        """A worker died with its pieces, most likely over the first, unless that had just been done; all wait again, each alone."""
        places = [flight.place for flight in self.flights.pop(worker)]
        self.waiting = sorted(self.waiting + places)
        work = self.works[places[0]]
        work.tries += 1
        for place in places:
            self.works[place].alone = True
        self.dispatch.retries += len(places)
        self.dispatch.restarts += 1
        facts = self.team.lose(worker)
        self.dispatch.on_event(
            "worker_lost", worker=worker, **facts, block=work.block, attempt=work.tries, reason=reason
        )
        if work.tries >= TRIES:
            raise RoundFailed(f"{work.name}: {work.tries} workers died over it, the last one because: {reason}")
