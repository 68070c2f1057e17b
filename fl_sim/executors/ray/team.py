"""The workers of this process: actors of Ray, hired, replaced and let go. No paper.

One crew a process, kept for the next run, because a new process takes seconds to start. What ends it is ``dismiss``, or
the end of the process.
"""

import atexit
import math
import os
import time
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from torch import Tensor

from fl_sim.errors import RoundFailed
from fl_sim.executors.ray.cluster import connect, connection, environment, fit, leave, ray, reason, started_here, trace
from fl_sim.executors.ray.dispatch import Lost, Work
from fl_sim.executors.ray.options import Ray
from fl_sim.executors.ray.serialize import LARGE, Lift, identity
from fl_sim.executors.ray.worker import Manner, Worker, versions

START_S = 180.0
"""Longest wait for a first worker."""
BIRTHS = 3
"""So many workers in a row may die before they have started."""


Lesson = tuple[str, Manner, Any]
"""(key, how to compute, reference to the parcel) of a run's learner."""


@dataclass
class Hand:
    """A worker as the driver sees it."""

    number: int
    actor: Any
    starting: Any = None
    """The ticket of its facts, which come when it has read what it needs."""
    ready: bool = False
    facts: dict[str, Any] = field(default_factory=dict)
    """Who it is; empty until it was ready once."""
    loaded: set[str] = field(default_factory=set)
    """Keys of what it was sent; each begins with the name of a run."""

    def learn(self, lesson: Lesson) -> None:
        """Send a run's learner, where it was not yet; it is not ready before it has read that."""
        if lesson[0] not in self.loaded:
            self.starting, self.ready = self.actor.learn.remote(*lesson), False
            self.loaded.add(lesson[0])


class Crew:
    """The workers of this process, a ``fl_sim.executors.ray.dispatch.Team``. Raises RoundFailed where Ray cannot be started or reached."""

    def __init__(self, settings: Ray, count: int, store_bytes: int) -> None:
        self.settings, self.count = settings, count
        self.hands: dict[int, Hand] = {}
        self._born = self._stillborn = 0
        self._shelf: dict[Any, tuple[np.ndarray, Any]] = {}
        self._readers: dict[str, set[Any]] = {}
        connect(settings.address, max(os.cpu_count() or 1, math.ceil(count * settings.num_cpus)), store_bytes)
        self.connection = connection()
        options: dict[str, Any] = {
            "num_cpus": settings.num_cpus,
            "num_gpus": settings.num_gpus,
            "max_restarts": 0,
            "max_task_retries": 0,
        }
        if not started_here():
            options |= {"runtime_env": {"env_vars": environment()}, "scheduling_strategy": "SPREAD"}
        elif not fit(ray().cluster_resources(), settings):
            raise RoundFailed(f"engine = 'ray': no worker fits on this machine: {self._needs()}")
        self._class = ray().remote(Worker).options(**options)

    def same_ray(self, settings: Ray, count: int) -> bool:
        """Whether the Ray that it is on can serve a run that asks for this."""
        if connection() != self.connection or settings.address != self.settings.address:
            return False
        return not started_here() or count * settings.num_cpus <= ray().cluster_resources().get("CPU", 0)

    def same_workers(self, settings: Ray) -> bool:
        """Whether its workers reserve what a run asks for."""
        return (settings.num_cpus, settings.num_gpus) == (self.settings.num_cpus, self.settings.num_gpus)

    def hire(self, count: int) -> None:
        """Have ``count`` workers, ready or starting; those beyond get no work. ``teach`` is to follow."""
        self.count = count
        while len(self.hands) < count:
            self.hands[self._born] = Hand(self._born, self._class.remote())
            self._born += 1

    def teach(self, lesson: Lesson) -> None:
        """Send a run's learner to all workers, those that replace lost ones too."""
        self._lesson = lesson
        for hand in self.hands.values():
            hand.learn(lesson)

    def put(self, thing: Any) -> Any:
        """Into the object store; returns a reference."""
        return ray().put(thing)

    def shelve(self, reader: str, samples: Iterable[Tensor]) -> Lift:
        """What puts samples and large arrays into the object store and a reference in their place: once for all runs, each a ``reader``.

        Other tensors (a module's own) are each worker's: code may write into them.
        """
        addresses = {x.data_ptr() for x in samples}

        def lift(array: np.ndarray, tensor: bool) -> Any:
            if array.nbytes < LARGE or (tensor and array.ctypes.data not in addresses):
                return array
            key = identity(array)
            if key not in self._shelf:
                self._shelf[key] = array, self.put(array)
            self._readers.setdefault(reader, set()).add(key)
            return self._shelf[key][1]

        return lift

    def forget(self, reader: str) -> None:
        """A run is over. Its large arrays stay for the next one, until ``tidy``."""
        self._readers.pop(reader, None)
        for hand in self.hands.values():
            keys = [key for key in hand.loaded if key.startswith(reader + "/")]
            hand.loaded -= set(keys)
            if keys and connection() == self.connection:
                hand.actor.forget.remote(keys)

    def tidy(self) -> None:
        """Let go what no run under way reads."""
        for key in set(self._shelf).difference(*self._readers.values()):
            del self._shelf[key]

    def close(self) -> None:
        """Let all workers go."""
        hands, self.hands = self.hands, {}
        for hand in hands.values() if connection() == self.connection else ():
            with suppress(Exception):
                ray().kill(hand.actor)

    # A team ------------------------------------------------------------------------------------------------------

    def ready(self) -> Sequence[int]:
        """Workers that have started."""
        return [number for number, hand in self.hands.items() if hand.ready][: self.count]

    def send(self, worker: int, work: Work) -> Any:
        """Hand over a piece."""
        return work.send(self.hands[worker])

    def wait(self, tickets: Sequence[Any], block: bool) -> Sequence[Any]:
        """The tickets that are done. Raises RoundFailed where no worker starts, or none that can take part."""
        until = time.monotonic() + START_S
        while True:
            starting = {hand.starting: hand for hand in self.hands.values() if not hand.ready}
            waited = [*tickets, *starting]
            done = set(ray().wait(waited, num_returns=1, timeout=1.0 if block else 0)[0]) if waited else set()
            if done and len(waited) > 1:
                done |= set(ray().wait(waited, num_returns=len(waited), timeout=0)[0])
            for ticket in done & starting.keys():
                self._welcome(starting[ticket])
            if done or not block:
                return [ticket for ticket in tickets if ticket in done]
            if not tickets and time.monotonic() > until:
                raise RoundFailed(f"engine = 'ray': no worker has started within {START_S:.0f} s: {self._needs()}")

    def result(self, ticket: Any) -> tuple[Any, float]:
        """What a worker returned. Raises Lost, or RoundFailed where the worker lives and cannot do it."""
        errors = ray().exceptions
        try:
            value, seconds = ray().get(ticket)
        except errors.RayTaskError as error:
            raise RoundFailed(f"engine = 'ray': {type(error.cause).__name__}: {error.cause}{trace(error)}") from error
        except errors.RayError as error:
            raise Lost(reason(error)) from error
        return value, seconds

    def lose(self, worker: int) -> dict[str, Any]:
        """Forget a worker and hire another."""
        hand = self.hands.pop(worker)
        with suppress(Exception):
            ray().kill(hand.actor)  # where it only was out of reach
        self._replace()
        return {"node": hand.facts["node"]}

    def cancel(self, ticket: Any) -> None:
        """A piece that waits is not begun; one under way is done in vain. Without its Ray it is gone, and asking would start another."""
        with suppress(Exception):
            if connection() == self.connection:
                ray().cancel(ticket)

    def clock(self) -> float:
        """Seconds."""
        return time.monotonic()

    def _replace(self) -> None:
        self.hire(self.count)
        self.teach(self._lesson)

    def _needs(self) -> str:
        there = {k: v for k, v in ray().cluster_resources().items() if k in ("CPU", "GPU")}
        wanted = f"{self.settings.num_cpus:g} CPUs and {self.settings.num_gpus:g} GPUs (ray.num_cpus, ray.num_gpus)"
        return f"each needs {wanted}, there are {there}"

    def _welcome(self, hand: Hand) -> None:
        """A worker has started, or has not."""
        try:
            facts = ray().get(hand.starting)
        except ray().exceptions.RayError as error:
            self._stillborn += 1
            del self.hands[hand.number]
            if self._stillborn < BIRTHS:
                self._replace()
            elif not self.hands:
                raise RoundFailed(
                    f"engine = 'ray': {self._stillborn} workers in a row died as they started: {reason(error)}"
                ) from error
            return
        self._stillborn = 0
        if facts["versions"] != versions():
            here, there = versions(), facts["versions"]
            raise RoundFailed(
                f"engine = 'ray': node {facts['node']} has {there}, the driver {here}; bits would differ, install the same"
            )
        hand.facts, hand.ready = facts, True


_crew: Crew | None = None


def crew_for(settings: Ray, count: int, store_bytes: int) -> Crew:
    """This process's workers: those there are, where they can serve, else new ones; ``count`` of them, ready or starting.

    Raises RoundFailed that says what is wrong where Ray or its workers cannot be started.
    """
    global _crew
    if _crew is not None and not _crew.same_ray(settings, count):
        dismiss()
    if _crew is None or not _crew.same_workers(settings):
        if _crew is not None:
            _crew.close()
        _crew = Crew(settings, count, store_bytes)
        atexit.unregister(dismiss)
        atexit.register(dismiss)  # runs before Ray's own, which was registered when Ray was imported
    _crew.hire(count)
    return _crew


def dismiss() -> None:
    """End this process's workers, and Ray where it was started for them. The next run starts them anew."""
    global _crew
    old, _crew = _crew, None
    if old is not None:
        old.close()
    leave()
