"""A clock of virtual time, and rounds in it: who is there, whose work is in time, when a round ends.

All of it is known before anybody trains, from the draws of ``fl_sim.population.devices``: so nobody trains in vain.

Legend: n launches (the messages of a round).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from fl_sim.errors import RoundFailed
from fl_sim.population.devices import SECOND, Devices, Durations, Work, check_time
from fl_sim.population.spells import NEVER

TRIES = 100_000
"""Instants at which a round looks for enough devices that are there, before it gives up."""


@dataclass(frozen=True)
class Outcome:
    """What virtual time makes of n launches."""

    shares: np.ndarray
    """(n,) float64: the share of its training steps that each does; 0 where its work is not used."""
    reasons: Mapping[int, str]
    """Index of a launch -> why its work is not used."""
    numbers: Sequence[Mapping[str, float]]
    """Of each launch: ``virtual_seconds``, ``speed_class`` and what else of the columns of ``times``."""
    columns: Mapping[str, object]
    """Of the round: ``virtual_time``, ``device_idle``, ``wasted_examples``, ``counted_by_speed``."""


@dataclass
class VirtualTime:
    """The clock of a run, and the rules of its rounds."""

    devices: Devices
    """How long clients take."""
    wanted: int = 0
    """The round is closed when so many have answered; 0: when all have."""
    deadline: int = 0
    """Nanoseconds after which a round is closed; 0: none."""
    keeps_partial: bool = False
    """Whether a client that is late answers at the deadline, with the steps that it has done."""
    now: int = 0
    """Nanoseconds since the run began."""
    asked: int = 1
    """Clients that a round asks for."""
    columns: Mapping[str, object] = field(default_factory=lambda: {"virtual_time": 0.0})
    """Of the last round."""

    def there(self, clients: Sequence[int]) -> np.ndarray | None:
        """The positions of the clients that are there; the clock moves on until as many are as a round asks for.

        None: all are there always.

        Raises RoundFailed where so many never are.
        """
        if self.devices.always:
            return None
        numbers, least = np.asarray(clients, np.int64), min(max(self.asked, 1), len(clients))
        for _ in range(TRIES):
            present = self.devices.available(numbers, self.now)
            if present.sum() >= least:
                return np.flatnonzero(present)
            comes = int(self.devices.comes(numbers[~present], self.now).min())
            if comes >= NEVER:
                after = f"after {self.now / SECOND:g} virtual seconds no device comes, and {present.sum()} are there"
                cure = "give a longer trace, repeat it (profile.period), or ask for a smaller cohort"
                raise RoundFailed(f"{self.devices.told}: {after}, of {least} that a round asks; {cure}")
            self.now = comes
        never = f"never are {least} of {len(clients)} devices there at once"
        raise RoundFailed(f"{self.devices.told}: {never}; ask for a smaller cohort")

    def close(self, work: Work, launch: int) -> Outcome:
        """Close a round of launches: which work is used, and when the round ends. Moves the clock to its end.

        Of equal instants that of the smaller client id is the earlier one.
        """
        took = self.devices.durations(work, launch)
        gone = took.vanishes >= 0
        if not (self.deadline or self.wanted or gone.any()):
            return self._all_counted(took)
        shares = np.ones(len(work.clients)) if not self.deadline else self.in_time(work, took)
        answers = np.where(shares == 1, took.total, self.deadline)
        order = np.lexsort((work.clients, answers))
        usable = [i for i in order if shares[i] and not gone[i]]
        counted = np.array(sorted(usable[: self.wanted] if self.wanted else usable), np.int64)
        full = bool(self.wanted) and len(usable) > len(counted)
        end = self._end(answers[counted], full, bool((shares < 1).any() or gone.any()))
        used = np.zeros(len(shares), bool)
        used[counted] = True
        reasons = {int(i): self._reason(took, shares, int(i), end) for i in np.flatnonzero(~used)}
        busy = np.minimum(np.where(gone, took.vanishes, answers), end)
        done = took.trained(busy)
        idle = 1 - busy.sum() / (end * len(busy)) if end and len(busy) else 0.0
        started = None if self.devices.always else self.now
        self._move(end)
        self.columns = {
            "virtual_time": self.now / SECOND,
            "device_idle": float(idle),
            "wasted_examples": int((done * work.samples)[~used].sum()),
            "counted_by_speed": np.bincount(took.speed_class[used], minlength=self.devices.classes).tolist(),
        }
        lasted = np.where(gone, took.vanishes, np.where(shares > 0, answers, took.total))
        return Outcome(np.where(used, shares, 0.0), reasons, times(took, lasted, started), self.columns)

    def _all_counted(self, took: Durations) -> Outcome:
        """What ``close`` says of a round that waits for all, of whom none vanishes: in half the time."""
        total = took.total
        n, end, started = len(total), int(total.max(initial=0)), None if self.devices.always else self.now
        self._move(end)
        self.columns = {
            "virtual_time": self.now / SECOND,
            "device_idle": float(1 - total.sum() / (end * n)) if end else 0.0,
            "wasted_examples": 0,
            "counted_by_speed": np.bincount(took.speed_class, minlength=self.devices.classes).tolist(),
        }
        return Outcome(np.ones(n), {}, times(took, total, started), self.columns)

    def _move(self, nanoseconds: int) -> None:
        """Let time go on. After 26 days not every nanosecond is a line's float64: the clock stands where its line says.

        So a run that is resumed from a line has the same clock.
        """
        check_time(self.now + nanoseconds)
        self.now = of_line((self.now + nanoseconds) / SECOND)

    def in_time(self, work: Work, took: Durations) -> np.ndarray:
        """(n,) the share of its steps that each does until the deadline: all, the steps that fit, or none."""
        room = self.deadline - took.before - took.after
        fits = np.floor(work.steps * np.clip(room / np.maximum(took.training, 1), 0, 1) + 1e-9)
        part = fits / np.maximum(work.steps, 1) if self.keeps_partial else np.zeros(len(room))
        return np.where(took.total <= self.deadline, 1.0, part)

    def _end(self, answers: np.ndarray, full: bool, late: bool) -> int:
        """Nanoseconds from the round's beginning to its end: its last counted answer, or the deadline it waits for."""
        return self.deadline if self.deadline and late and not full else int(answers.max(initial=0))

    def _reason(self, took: Durations, shares: np.ndarray, i: int, end: int) -> str:
        if took.vanishes[i] >= 0:
            return f"its device vanished after {took.vanishes[i] / SECOND:g} virtual seconds"
        if shares[i] == 0:
            takes = f"it takes {took.total[i] / SECOND:g} virtual seconds"
            return f"late: {takes}, and system.deadline is {self.deadline / SECOND:g}"
        return f"the round had enough answers after {end / SECOND:g} virtual seconds"

    def resumed(self, row: Mapping[str, object]) -> bool:
        """Go on at the instant of a logged round; whether it has one."""
        time = row.get("virtual_time")
        if isinstance(time, (int, float)):
            self.now = of_line(float(time))
        return isinstance(time, (int, float))


def of_line(seconds: float) -> int:
    """The nanoseconds that ``virtual_time`` says."""
    return round(seconds * SECOND)


def times(took: Durations, lasted: np.ndarray, started: int | None) -> list[dict[str, float]]:
    """The times of n launches, for their rows in the log, in virtual seconds.

    ``virtual_down`` and ``virtual_up`` are left out where messages take no time, and ``started`` where it is None.

    Parameters
    ----------
    took, lasted : Durations, int64 array (n,)
        How long the launches take, and how long they lasted (less, where a device vanished): nanoseconds.
    started : int or None
        The instant at which they began; None: at the end of the round before.
    """
    columns = {"virtual_seconds": (lasted / SECOND).tolist(), "speed_class": took.speed_class.tolist()}
    if took.before.any() or took.after.any():
        down, up = took.messages(lasted)
        columns["virtual_down"], columns["virtual_up"] = (down / SECOND).tolist(), (up / SECOND).tolist()
    if started is not None:
        columns["started"] = [started / SECOND] * len(lasted)
    return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
