"""Who starts when, from which model; and whose replies the next server step takes, unread.

At an instant of virtual time all clients that are done are taken in, in the order of their ids, with the server steps
that this makes possible; then others start in their place, from the model that there is by then.
"""

from collections import Counter, deque
from collections.abc import Mapping, Sequence
from typing import Any

from flwr.app import Message, RecordDict

from fl_sim import rng
from fl_sim.errors import RoundFailed
from fl_sim.grids.simulation import SimulationGrid
from fl_sim.grids.virtual_time.event_clock import EventClock, Flight
from fl_sim.grids.virtual_time.waves import Waves
from fl_sim.rounds.asynchronous.step_exchange import Launched
from fl_sim.rounds.callbacks import Run
from fl_sim.wire import flower
from fl_sim.wire.arrivals import AsynchronousStrategy

MOST_LOST = 1000
"""Launches in a row without an answer after which a run fails, besides a hundred for each client in flight."""


class Schedule:
    """The launches of a run.

    Parameters
    ----------
    run : Run
        Its strategy is an AsynchronousStrategy; ``round`` is the number of the next server step.
    grid : SimulationGrid
        Where messages go.
    clock : EventClock
        Which clients start, and when they are done.
    waves : Waves
        The grid's messages under way.
    num_bytes : int
        Model bytes of a message.
    seed : int
        Keys the draw of persistent workers.
    """

    def __init__(
        self,
        run: Run,
        strategy: AsynchronousStrategy,
        grid: SimulationGrid,
        clock: EventClock,
        waves: Waves,
        num_bytes: int,
        seed: int,
    ) -> None:
        self.run, self.strategy, self.grid, self.clock, self.waves = run, strategy, grid, clock, waves
        self.num_bytes, self.seed = num_bytes, seed
        self.lost: list[tuple[Launched, str]] = []
        """Launches since the last step that give no reply, and why."""
        self.stepped = True
        """Whether the server has stepped since clients were started last."""
        self._launched: dict[int, Launched] = {}
        """Client in flight, or done at this instant -> its launch."""
        self._arrivals: deque[Flight] = deque()
        """Of this instant, those that are still to be taken in."""
        self._buffer: list[Launched] = []
        """Those that are done, and whose replies no step has read."""
        self._again: Counter[int] = Counter()
        """Client -> launches from the model ``_started_from``."""
        self._started_from = -1
        self._contents: dict[int, RecordDict] = {}
        """Launches of a client before, from that model -> what its message holds."""
        self._workers: dict[int, int] = {}
        """Persistent worker -> launches that it has completed."""
        self._in_a_row = 0
        """Launches without an answer since the last one with an answer."""

    def collect(self, count: int) -> list[Launched]:
        """Let virtual time go on until ``count`` clients are done whose replies no step has read; takes these."""
        while len(self._buffer) < count:
            if self._arrivals:
                self._arrive(self._arrivals.popleft())
            else:
                self._start()
                self._arrivals.extend(self.clock.next())
        taken, self._buffer = self._buffer[:count], self._buffer[count:]
        return taken

    def _arrive(self, flight: Flight) -> None:
        launched = self._launched.pop(flight.client)
        staleness = self.run.round - 1 - launched.version
        if flight.vanishes:
            self._lose(launched, "its device vanished")
            return
        if self.strategy.persistent:
            self._workers[flight.client] += 1
        if not self.strategy.accepts(staleness):
            self.waves.forget(launched.number)
            self._lose(launched, f"its reply is {staleness} steps late")
            return
        self._in_a_row = 0
        self._buffer.append(launched)

    def _lose(self, launched: Launched, why: str) -> None:
        self.lost.append((launched, why))
        self._in_a_row += 1
        if self._in_a_row > MOST_LOST + 100 * self.strategy.concurrency:
            raise RoundFailed(f"round {self.run.round}: the last {self._in_a_row} clients gave no reply; {why}")

    def begin_again(self, taken: Sequence[Launched], good: Sequence[tuple[Launched, Message]]) -> None:
        """Persistent workers whose reply was read and is of no use have not completed a launch."""
        used = {launched.flight.client for launched, _ in good}
        for one in taken if len(good) < len(taken) else ():
            if one.flight.client in self._workers and one.flight.client not in used:
                self._workers[one.flight.client] -= 1

    # Starts ---------------------------------------------------------------------------------------------------------

    def _start(self) -> None:
        """Start clients in place of those that are done."""
        strategy = self.strategy
        if not strategy.persistent:
            self._launch(self.clock.start(strategy.concurrency - len(self.clock.in_flight)))
            return
        if not self._workers:
            clients = self.clock.clients
            chosen = rng.sample(rng.key(self.seed, "workers"), len(clients), strategy.concurrency)
            self._workers = dict.fromkeys((clients[i] for i in sorted(chosen)), 0)
        states: tuple[dict[int, int], dict[int, int]] = {}, {}
        for client, done in self._workers.items():
            states[client in self.clock.in_flight][client] = done
        chosen = list(strategy.released(*states, self.stepped)) if states[0] else []
        if wrong := [client for client in chosen if client not in states[0]]:
            raise RoundFailed(f"{type(strategy).__name__}.released: client {wrong[0]} does not wait")
        self.stepped = False
        self._launch(self.clock.start_these(chosen))

    def _launch(self, flights: list[Flight]) -> None:
        """Send messages with the present model to clients that start now."""
        if not flights:
            return
        version, offset = self.run.round - 1, flower.FIRST_NODE
        if version != self._started_from:
            self._started_from, self._again, self._contents = version, Counter(), {}
        sent = [(self._content(flight.client), flight.client + offset) for flight in flights]
        messages = flower.requests(sent, "train")
        numbers = iter(self.grid.push_messages(m for m, one in zip(messages, flights, strict=True) if not one.vanishes))
        for flight, message in zip(flights, messages, strict=True):
            number = "" if flight.vanishes else next(numbers)
            self._launched[flight.client] = Launched(flight, version, message, number, self.num_bytes)

    def _content(self, client: int) -> RecordDict:
        """What the message holds that starts a client now."""
        again = self._again[client]
        self._again[client] += 1
        if again not in self._contents:
            run = self.run
            self._contents[again] = self.strategy.launch_content(run.round, run.arrays, run.train_config, again)
        return self._contents[again]

    # Checkpoints ----------------------------------------------------------------------------------------------------

    def state(self) -> dict[str, Any]:
        """All of it, between two server steps, as values that a checkpoint holds: what ``restore`` takes."""
        launched = [self._row(one) for one in self._launched.values()]
        again = [[client, count] for client, count in self._again.items()]
        return {
            "clock": self.clock.state(),
            "waves": self.waves.state(),
            "launched": launched,
            "arrivals": [list(flight) for flight in self._arrivals],
            "buffer": [self._row(one) for one in self._buffer],
            "again": [self._started_from, again],
            "workers": [[client, count] for client, count in self._workers.items()],
            "in_a_row": self._in_a_row,
            "stepped": self.stepped,
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on where another schedule stood."""
        self.clock.restore(state["clock"])
        self.waves.restore(state["waves"])
        self._launched = {one.flight.client: one for one in map(self._of_row, state["launched"])}
        self._arrivals = deque(Flight(*row) for row in state["arrivals"])
        self._buffer = [self._of_row(row) for row in state["buffer"]]
        self._started_from, again = state["again"]
        self._again = Counter(dict(again))
        self._workers = dict(state["workers"])
        self._in_a_row, self.stepped = int(state["in_a_row"]), bool(state["stepped"])

    def _row(self, one: Launched) -> list[Any]:
        return [list(one.flight), one.version, one.number]

    def _of_row(self, row: list[Any]) -> Launched:
        flight, version, number = Flight(*row[0]), int(row[1]), str(row[2])
        waiting = self.waves.waiting.get(number)
        message = Message(RecordDict(), flight.client + flower.FIRST_NODE, "train") if waiting is None else None
        return Launched(flight, version, message or waiting.message, number, self.num_bytes)  # type: ignore[union-attr]
