"""Runs the systems of a work against each other, go by go. No paper.

Where a go is one round, all systems are started first; then each does one round in turn while the others are frozen, so that
what else the machine does hits all of them. The one that begins changes from turn to turn. Where a go is a whole run, each
has a process of its own, in turn.
"""

import itertools
import json
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from experiments.bench import ROOT, systems
from experiments.bench.children.child import Child, Stopped
from experiments.bench.children.observed import Compared, Raw
from experiments.bench.workloads.catalogue import Work

YARDSTICK = "yardstick"


@dataclass(frozen=True)
class Bench:
    """What all works have in common."""

    mark: str
    cores: int
    folder: str
    """For files of the moment; a short path, for Ray's sockets lie below it."""
    logs: Path
    say: Callable[[str], None]
    """Progress, for people."""


def compare(work: Work, names: Sequence[str], bench: Bench) -> Compared:
    """Run one work on some systems."""
    with tempfile.TemporaryDirectory(dir=bench.folder, prefix="") as folder:
        prepared = prepare(work, folder) if work.task else {"random": True}
        work = replace(work, random=prepared["random"])
        raws = {name: Raw(name) for name in names}
        job = {"work": work.to_dict(), "folder": folder, "goes": work.warmup + work.goes, "cores": bench.cores}
        if work.whole:
            for go in range(work.warmup + work.goes):
                for name in names:
                    _whole(work, raws[name], _child(work, name, {**job, "goes": 1}, bench), go >= work.warmup, bench)
            return Compared(work, list(raws.values()), prepared, [])
        if work.model == "cnn":
            raws[YARDSTICK] = Raw(YARDSTICK)
        _rounds(work, raws, job, bench)
        yardstick = raws.pop(YARDSTICK, Raw(YARDSTICK))
        return Compared(work, list(raws.values()), prepared, yardstick.facts)


def prepare(work: Work, folder: str) -> dict[str, Any]:
    """Write the files that all systems read."""
    rounds = work.rounds if work.whole else work.warmup + work.goes
    job = json.dumps({"work": work.to_dict(), "folder": folder, "rounds": rounds})
    command = [sys.executable, "-m", "experiments.bench.workloads.prepare"]
    done = subprocess.run(command, input=job, capture_output=True, text=True, cwd=ROOT)
    if done.returncode:
        raise RuntimeError(f"{work.name} could not be prepared: {done.stderr[-1000:]}")
    facts: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return facts


def _child(work: Work, name: str, job: dict[str, Any], bench: Bench) -> Child:
    system = systems.YARDSTICK if name == YARDSTICK else systems.SYSTEMS[name]
    number = next(_numbers)
    log = bench.logs / f"{work.name}-{name}.log"
    return Child(system, {**job, "options": system.options}, f"{bench.mark}-{number}-", log, work.limit_s)


_numbers = itertools.count()


def _whole(work: Work, raw: Raw, child: Child, timed: bool, bench: Bench) -> None:
    """One whole run in a process of its own."""
    if raw.status != "ok":
        return
    with _noted(raw, child, bench):
        with child.watched():
            ready = child.start()
            answer = child.go()
            final = child.ask("evaluate")
        raw.peak, raw.accuracy = (
            max(raw.peak, child.peak),
            final.get("accuracy"),
        )  # one child's pair: its peaks belong together
        bench.say(f"{work.name} {raw.system}: {answer['seconds']:.2f} s{'' if timed else ', not counted'}")
        if timed:
            raw.startup_s.append(ready["startup_s"])
            raw.setup_s.append(ready["setup_s"])
            raw.add(answer)
    child.close()


def _rounds(work: Work, raws: dict[str, Raw], job: dict[str, Any], bench: Bench) -> None:
    """Rounds in turn."""
    children = {name: _child(work, name, job, bench) for name in raws}
    try:
        for name, child in children.items():
            with _noted(raws[name], child, bench):
                with child.watched():
                    ready = child.start()
                raws[name].startup_s, raws[name].setup_s = [ready["startup_s"]], [ready["setup_s"]]
                bench.say(f"{work.name} {name}: ready after {ready['startup_s']:.1f} s")
            child.freeze()
        for go in range(work.warmup + work.goes):
            for name in _turn(list(children), go):
                if raws[name].status == "ok":
                    _go(work, raws[name], children[name], go - work.warmup, bench)
        for name, child in children.items():
            if raws[name].status == "ok":
                child.thaw()
                with _noted(raws[name], child, bench), child.watched():
                    raws[name].accuracy = child.ask("evaluate").get("accuracy")
                raws[name].peak = child.peak
                child.close()
    finally:
        for child in children.values():
            child.close()


def _turn(names: list[str], go: int) -> list[str]:
    """Who is when: another one begins each time."""
    first = go % len(names)
    return names[first:] + names[:first]


def _go(work: Work, raw: Raw, child: Child, number: int, bench: Bench) -> None:
    """One round of one system; before the timed ones its memory is watched meanwhile, else only after."""
    child.thaw()
    with _noted(raw, child, bench):
        if number < 0:
            with child.watched():
                child.go()
        else:
            raw.add(child.go())
            bench.say(f"{work.name} {raw.system}: {raw.seconds[-1]:.3f} s")
    child.freeze()
    if number >= 0:
        child.measure()


@contextmanager
def _noted(raw: Raw, child: Child, bench: Bench) -> Iterator[None]:
    """A system that gives no answer is noted and ended; the others go on."""
    try:
        yield
    except Stopped as stopped:
        raw.status, raw.reason = stopped.status, str(stopped)
        bench.say(f"{raw.system}: {'not available' if stopped.status == 'unavailable' else 'failed'}: {stopped}")
        if stopped.status == "failed":
            bench.say(child.tail())
        child.close()
