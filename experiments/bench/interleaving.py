"""Runs the systems of a workload in turn, so that other load on the machine slows all of them alike.

The timed unit is one repetition: a round, or a whole run. Where it is a round, all systems are started first; then each
does one round in turn while the others are frozen (their processes are suspended). A different system comes first in
each turn. Where the unit is a whole run, each run has a process of its own, and the systems take turns.
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
from experiments.bench.children.measurements import SystemMeasurements, WorkMeasurements
from experiments.bench.workloads.catalogue import Work

YARDSTICK = "yardstick"
"""Name of the matrix product that runs beside the systems and shows what the machine can do."""


@dataclass(frozen=True)
class Session:
    """What all workloads of one command share."""

    mark: str
    """Start of the marks of all child processes: see ``process_tree``."""
    cores: int
    """Cores that each system may use."""
    folder: str
    """Temporary folder; its path must be short, because Ray's sockets lie in it."""
    logs: Path
    """Folder for the stderr of the children."""
    progress: Callable[[str], None]
    """Callback that shows a line of progress to the user."""


def compare(work: Work, names: Sequence[str], session: Session) -> WorkMeasurements:
    """Run one workload on the named systems, and return all measurements."""
    with tempfile.TemporaryDirectory(dir=session.folder, prefix="") as folder:
        prepared = prepare(work, folder) if work.task else {"random": True}
        work = replace(work, random=prepared["random"])
        measured = {name: SystemMeasurements(name) for name in names}
        job = {"work": work.to_dict(), "folder": folder, "goes": work.warmup + work.goes, "cores": session.cores}
        if work.whole:
            for repetition in range(work.warmup + work.goes):
                for name in names:
                    child = _child(work, name, {**job, "goes": 1}, session)
                    _whole_run(work, measured[name], child, repetition >= work.warmup, session)
            return WorkMeasurements(work, list(measured.values()), prepared, [])
        if work.model == "cnn":
            measured[YARDSTICK] = SystemMeasurements(YARDSTICK)
        _rounds_in_turn(work, measured, job, session)
        yardstick = measured.pop(YARDSTICK, SystemMeasurements(YARDSTICK))
        return WorkMeasurements(work, list(measured.values()), prepared, yardstick.facts)


def prepare(work: Work, folder: str) -> dict[str, Any]:
    """Write the input files that all systems read, in a process of its own; returns what is known about them."""
    rounds = work.rounds if work.whole else work.warmup + work.goes
    job = json.dumps({"work": work.to_dict(), "folder": folder, "rounds": rounds})
    command = [sys.executable, "-m", "experiments.bench.workloads.prepare"]
    done = subprocess.run(command, input=job, capture_output=True, text=True, cwd=ROOT)
    if done.returncode:
        raise RuntimeError(f"{work.name} could not be prepared: {done.stderr[-1000:]}")
    facts: dict[str, object] = json.loads(done.stdout.splitlines()[-1])
    return facts


def turn_order(names: list[str], repetition: int) -> list[str]:
    """The order of the systems in one turn: rotated, so that another one comes first each time."""
    first = repetition % len(names)
    return names[first:] + names[:first]


def _child(work: Work, name: str, job: dict[str, object], session: Session) -> Child:
    system = systems.YARDSTICK if name == YARDSTICK else systems.SYSTEMS[name]
    number = next(_numbers)
    log = session.logs / f"{work.name}-{name}.log"
    return Child(system, {**job, "options": system.options}, f"{session.mark}-{number}-", log, work.limit_s)


_numbers = itertools.count()


def _whole_run(work: Work, measured: SystemMeasurements, child: Child, timed: bool, session: Session) -> None:
    """One whole run in a process of its own."""
    if measured.status != "ok":
        return
    with _failures_recorded(measured, child, session):
        with child.memory_watched():
            ready = child.start()
            answer = child.run_once()
            final = child.ask("evaluate")
        # The larger pair as a whole: both peaks then come from the same run.
        measured.peak, measured.accuracy = max(measured.peak, child.peak), final.get("accuracy")
        counted = "" if timed else ", not counted"
        session.progress(f"{work.name} {measured.system}: {answer['seconds']:.2f} s{counted}")
        if timed:
            measured.startup_s.append(ready["startup_s"])
            measured.setup_s.append(ready["setup_s"])
            measured.add(answer)
    child.close()


def _rounds_in_turn(
    work: Work, measured: dict[str, SystemMeasurements], job: dict[str, object], session: Session
) -> None:
    """Start all systems, then let each do one round in turn."""
    children = {name: _child(work, name, job, session) for name in measured}
    try:
        for name, child in children.items():
            with _failures_recorded(measured[name], child, session):
                with child.memory_watched():
                    ready = child.start()
                measured[name].startup_s, measured[name].setup_s = [ready["startup_s"]], [ready["setup_s"]]
                session.progress(f"{work.name} {name}: ready after {ready['startup_s']:.1f} s")
            child.freeze()
        for repetition in range(work.warmup + work.goes):
            for name in turn_order(list(children), repetition):
                if measured[name].status == "ok":
                    _one_round(work, measured[name], children[name], repetition >= work.warmup, session)
        for name, child in children.items():
            if measured[name].status == "ok":
                child.thaw()
                with _failures_recorded(measured[name], child, session), child.memory_watched():
                    measured[name].accuracy = child.ask("evaluate").get("accuracy")
                measured[name].peak = child.peak
                child.close()
    finally:
        for child in children.values():
            child.close()


def _one_round(work: Work, measured: SystemMeasurements, child: Child, timed: bool, session: Session) -> None:
    """One round of one system. Memory is watched during warm-up rounds, but read only after a timed round."""
    child.thaw()
    with _failures_recorded(measured, child, session):
        if timed:
            measured.add(child.run_once())
            session.progress(f"{work.name} {measured.system}: {measured.seconds[-1]:.3f} s")
        else:
            with child.memory_watched():
                child.run_once()
    child.freeze()
    if timed:
        child.measure_memory()


@contextmanager
def _failures_recorded(measured: SystemMeasurements, child: Child, session: Session) -> Iterator[None]:
    """Record that a system gave no answer, and end it; the other systems go on."""
    try:
        yield
    except Stopped as stopped:
        measured.status, measured.reason = stopped.status, str(stopped)
        outcome = "not available" if stopped.status == "unavailable" else "failed"
        session.progress(f"{measured.system}: {outcome}: {stopped}")
        if stopped.status == "failed":
            session.progress(child.tail())
        child.close()
