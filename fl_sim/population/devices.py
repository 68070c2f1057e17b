"""Devices of clients: how many virtual seconds a client takes to get the model, train and answer, and when it is there.

A profile says how devices differ (``draw``); the numbers here turn its draws into durations in whole nanoseconds of
virtual time. A draw is a function of (seed, client), or with ``per = launch`` of (seed, client, launch): the same for
every strategy, and never for all registered clients at once, so that a million of them cost nothing.

Legend: n launches (a client's work in one round each).
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
import torch

from fl_sim import rng
from fl_sim.errors import ConfigError, RoundFailed
from fl_sim.population.spells import Spells

SECOND = 1_000_000_000
"""Nanoseconds of a second: virtual time is counted in whole nanoseconds, so that its order has no rounding."""
LONGEST = 2**62
"""The end of virtual time, and the longest duration, in nanoseconds: 146 years. What would be longer is refused."""


class Drawn(NamedTuple):
    """What a profile draws for n launches; None: what the profile's common settings say."""

    slowness: np.ndarray
    """(n,) factor of the seconds that steps and samples take: 2 is half as fast."""
    speed_class: np.ndarray
    """(n,) int64: 0 for the fastest class of devices."""
    seconds: np.ndarray | None = None
    """(n,) further seconds of each launch, whatever its work."""
    down: np.ndarray | None = None
    """(n,) bytes a second to the device; infinite where nothing limits it."""
    up: np.ndarray | None = None
    """(n,) bytes a second from the device."""


Draw = Callable[[np.ndarray, np.ndarray, np.ndarray], Drawn]
"""``draw(clients (n,) int64, device (n,) uint64, launch (n,) uint64)``: a profile.

``device`` are the keys of what a device has for the whole run; with ``per = launch`` they are the keys ``launch``, of
what differs from launch to launch anyway. It draws from these alone (``uniform``).
"""


class Work(NamedTuple):
    """The work of n launches."""

    clients: np.ndarray
    """(n,) int64 client ids."""
    steps: np.ndarray
    """(n,) int64 training steps."""
    samples: np.ndarray
    """(n,) int64 samples that pass through the model."""
    down: np.ndarray
    """(n,) int64 bytes of the message."""
    up: np.ndarray
    """(n,) int64 bytes of the reply."""


class Durations(NamedTuple):
    """How long n launches take, in nanoseconds: message, then training, then reply."""

    before: np.ndarray
    """(n,) int64: latency and download."""
    training: np.ndarray
    """(n,) int64."""
    after: np.ndarray
    """(n,) int64: upload and latency."""
    vanishes: np.ndarray
    """(n,) int64: the time from the launch at which the device vanishes, or -1: it answers."""
    speed_class: np.ndarray
    """(n,) int64."""

    @property
    def total(self) -> np.ndarray:
        """(n,) int64: from the launch to the reply."""
        return np.asarray(self.before + self.training + self.after)

    def messages(self, lasted: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """((n,) int64, (n,) int64): which part of launches that ``lasted`` (n,) so long their two messages take."""
        gone = self.vanishes >= 0
        up = np.where(gone, np.clip(lasted - self.before - self.training, 0, self.after), self.after)
        return np.minimum(self.before, lasted), up

    def trained(self, lasted: np.ndarray) -> np.ndarray:
        """(n,) float64: the share of its training that each launch has done after ``lasted`` (n,) nanoseconds."""
        return np.asarray(np.clip((lasted - self.before) / np.maximum(self.training, 1), 0, 1))


@dataclass(frozen=True)
class Devices:
    """The devices of a run's clients: a profile's draws and its common numbers."""

    draw: Draw
    """How devices differ."""
    classes: int = 3
    """How many speed classes ``draw`` tells apart."""
    seed: int = 0
    """Keys all draws."""
    per: Literal["client", "launch"] = "client"
    """Whether a client has the same device at each launch, or another one each time."""
    step: float = 1.0
    """Virtual seconds of a training step on a device of slowness 1."""
    sample: float = 0.0
    """Virtual seconds of a sample in a step, on a device of slowness 1."""
    down: float = math.inf
    """Bytes a second to the device."""
    up: float = math.inf
    """Bytes a second from the device."""
    latency: float = 0.0
    """Seconds that each message takes besides its bytes, one way."""
    vanish: float = 0.0
    """The probability that a device vanishes at a uniform instant of its work and never answers."""
    on: float = 0.0
    """Seconds of a spell in which a device is there; 0: always."""
    off: float = 0.0
    """Seconds between two such spells."""
    spells: Spells | None = None
    """When devices are there, where a profile says it itself; None: ``on`` and ``off`` do."""

    def __post_init__(self) -> None:
        for key in ("on", "off"):
            whole_nanoseconds(f"profile.{key}", getattr(self, key))

    @property
    def always(self) -> bool:
        """Whether all devices are there at all times."""
        return self.spells is None and not self.on

    @property
    def told(self) -> str:
        """Where spells come from, for errors."""
        return f"profile.on = {self.on:g}, profile.off = {self.off:g}" if self.spells is None else self.spells.told

    def durations(self, work: Work, launch: int | np.ndarray) -> Durations:
        """How long each launch of ``work`` takes; ``launch`` is the round, or (n,) the number of each launch.

        Raises RoundFailed for a duration that is negative, NaN or longer than ``LONGEST``.
        """
        own = rng.subkeys(np.array([rng.key(self.seed, "device")], np.uint64), work.clients)
        each = rng.subkeys(own, np.atleast_1d(launch))
        drawn = self.draw(work.clients, each if self.per == "launch" else own, each)
        training = drawn.slowness * (self.step * work.steps + self.sample * work.samples)
        training = training if drawn.seconds is None else training + drawn.seconds
        before = self.latency + work.down / (self.down if drawn.down is None else drawn.down)
        after = self.latency + work.up / (self.up if drawn.up is None else drawn.up)
        parts = np.broadcast_arrays(before, training, after)
        _check_countable(work.clients, parts)
        waits, trains, answers = map(nanoseconds, parts)
        vanishes = self._vanishing(each, waits + trains + answers)
        return Durations(waits, trains, answers, vanishes, drawn.speed_class)

    def _vanishing(self, keys: np.ndarray, total: np.ndarray) -> np.ndarray:
        """(n,) int64: when each device vanishes, or -1."""
        never = np.full(len(keys), -1, np.int64)
        if not self.vanish:
            return never
        lost = uniform(keys, "vanish") < self.vanish
        return np.where(lost, (uniform(keys, "instant") * total).astype(np.int64), never)

    def available(self, clients: np.ndarray, now: int) -> np.ndarray:
        """(n,) bool: whether each device is there at ``now`` (nanoseconds)."""
        if self.spells is not None:
            return self.spells.available(clients, now)
        return self._phase(clients, now) < int(self.on * SECOND) if self.on else np.ones(len(clients), bool)

    def comes(self, clients: np.ndarray, now: int) -> np.ndarray:
        """(n,) int64: when each device is there next, not before ``now``; ``spells.NEVER`` where it never is again."""
        if self.spells is not None:
            return self.spells.comes(clients, now)
        period, phase = self._period, self._phase(clients, now)
        return np.where(self.available(clients, now), now, now + period - phase)

    @property
    def _period(self) -> int:
        return int(self.on * SECOND) + int(self.off * SECOND)

    def _phase(self, clients: np.ndarray, now: int) -> np.ndarray:
        """(n,) int64: nanoseconds since each device's spell began; spells of clients begin at keyed instants."""
        keys = rng.subkeys(np.array([rng.key(self.seed, "spell")], np.uint64), clients)
        return ((uniform(keys, "phase") * self._period).astype(np.int64) + now) % self._period


def uniform(keys: np.ndarray, purpose: str) -> np.ndarray:
    """A number in (0, 1) for each key (n,) uint64: (n,) float64."""
    return np.asarray(((rng.seed_keys(keys, purpose) >> np.uint64(11)).astype(np.float64) + 0.5) * 2.0**-53)


def normal_quantile(u: np.ndarray) -> np.ndarray:
    """The standard normal quantile of each number in (0, 1)."""
    return np.asarray(torch.special.ndtri(torch.from_numpy(np.ascontiguousarray(u))).numpy())


def thirds(u: np.ndarray) -> np.ndarray:
    """The speed class 0, 1 or 2 of devices whose slowness is a rising function of u in (0, 1)."""
    return np.asarray((u * 3).astype(np.int64))


def nanoseconds(seconds: np.ndarray) -> np.ndarray:
    """(n,) seconds, at most ``LONGEST`` nanoseconds, as whole nanoseconds, int64."""
    return np.asarray(np.rint(np.minimum(seconds, LONGEST / SECOND) * SECOND).astype(np.int64))


def _check_countable(clients: np.ndarray, parts: Sequence[np.ndarray]) -> None:
    """Raise RoundFailed where a part (n,) of a duration is negative or NaN, or all together are too long: seconds."""
    total = sum(parts)
    right = np.logical_and.reduce([part >= 0 for part in parts]) & (total <= LONGEST / SECOND)
    if not right.all():
        at = int(right.argmin())
        names = ("its message", "its training", "its reply")
        takes = ", ".join(f"{name} {part[at]:g}" for name, part in zip(names, parts, strict=True))
        most = f"they must be from 0 on, and at most {LONGEST / SECOND:.2g} together"
        raise RoundFailed(f"client {clients[at]}: virtual seconds of {takes}: {most}; change profile.*")


def check_time(now: int) -> None:
    """Raise RoundFailed where virtual time is over: after ``LONGEST`` nanoseconds."""
    if now > LONGEST:
        what = f"virtual time ends after {LONGEST / SECOND:.2g} seconds, and this is {now / SECOND:.3g}"
        raise RoundFailed(f"{what}; choose faster devices (profile.*), or end the run before (stop.virtual_time)")


def whole_nanoseconds(key: str, seconds: float) -> int:
    """The virtual seconds that the setting ``key`` gives, in nanoseconds; 0 means none.

    Raises ConfigError where they are not 0 and less than a nanosecond, or more than a quarter of ``LONGEST``.
    """
    most = LONGEST // 4 / SECOND
    if seconds and not 1 / SECOND <= seconds <= most:
        counted = f"virtual time is counted in nanoseconds; give 0 for none, or 1e-09 to {most:.2g} seconds"
        raise ConfigError(f"{key} = {seconds!r}: {counted}")
    return round(seconds * SECOND)
