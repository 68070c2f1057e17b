"""Devices from a trace: the speed and the bandwidths of each client, and when it is there, as they were measured.

slowness = 1 / speed:  with profile.step 1 the speed is steps a virtual second
"""

from typing import Annotated

import numpy as np
from annotated_types import Ge

from clients.sources.device_traces import Trace, read_trace
from fl_sim.population.devices import Drawn, nanoseconds, uniform, whole_nanoseconds
from fl_sim.population.spells import RecordedSpells
from fl_sim.registry import offer


class Recorded:
    """A profile's ``draw``, with the spells of the trace."""

    def __init__(self, trace: Trace, spells: RecordedSpells | None, digest: str, per_launch: bool, used: int) -> None:
        order = np.argsort(trace.columns["client"], kind="stable")
        self.clients = trace.columns["client"][order]
        self.slowness = 1 / trace.columns["speed"][order]
        self.limits = [trace.columns[name][order] if name in trace.columns else None for name in ("down", "up")]
        self.limits = [None if x is None else np.where(x == 0, np.inf, x) for x in self.limits]
        known = np.sort(self.slowness if per_launch else self.slowness[self.clients < used])
        faster = np.searchsorted(known, self.slowness, side="left")
        self.speed_class = np.minimum(faster * 3 // max(len(known), 1), 2).astype(np.int64)
        self.per_launch, self.spells, self.digest = per_launch, spells, digest
        self.own = tuple(name for name in ("down", "up") if name in trace.columns)
        """The common settings of profiles that the trace has itself."""

    def __call__(self, clients: np.ndarray, device: np.ndarray, launch: np.ndarray) -> Drawn:
        """The rows of ``clients``, or with ``per = launch`` a row for each launch."""
        n = len(self.clients)
        at = np.searchsorted(self.clients, clients)
        if self.per_launch:
            at = np.minimum((uniform(launch, "row") * n).astype(np.int64), n - 1)
        limits = (None if x is None else x[at] for x in self.limits)
        return Drawn(self.slowness[at], self.speed_class[at], None, *limits)


@offer("profile", recorded=True)
def recorded(
    clients: int,
    training: int,
    per: str,
    file: str = "",
    spells: str = "",
    period: Annotated[float, Ge(0)] = 0.0,
    digest: str = "",
) -> Recorded:
    """Devices from ``file``: CSV or Parquet with the columns ``client, speed`` and, if wanted, ``down, up``.

    ``speed`` is the inverse of the slowness (2 takes half as long), ``down`` and ``up`` are bytes a second, 0 for no
    limit. ``spells`` is a second file, with the columns ``client, start, end``: a device is there from ``start`` up to
    ``end`` (virtual seconds from the run's beginning); without it all are there always. With ``period`` the spells
    begin again after so many seconds. Each client that may train needs a row in both. With ``profile.per = launch``
    each launch draws a row of ``file``, whoever the client is. Rows of further clients are not used.

    ``digest``: SHA-256 of the files, with a comma between; a run writes it into its config, so that a resumed or
    replayed run refuses files that have changed. Raises ValueError for them, and for wrong rows, which it names.
    """
    trace = read_trace("profile.file", file, ("client", "speed"), ("down", "up"))
    speed = trace.columns["speed"]
    trace.refuse(~((speed > 1e-300) & np.isfinite(speed)), "speed", "must be above 0, and finite")
    for name in {"down", "up"} & trace.columns.keys():
        trace.refuse(trace.columns[name] < 0, name, "must be bytes a second, or 0 for no limit")
    check_once(trace)
    if per == "client":
        check_all(trace, training)
    times = read_trace("profile.spells", spells, ("client", "start", "end")) if spells else None
    if period and times is None:
        raise ValueError(f"profile.period = {period:g}: repeats spells, and profile.spells names no file; leave it out")
    found = ",".join(x.digest for x in (trace, times) if x is not None)
    check_digest(digest, found, file, spells)
    there = None if times is None else spells_of(times, spells, period, training)
    return Recorded(trace, there, found, per == "launch", clients)


def check_once(trace: Trace) -> None:
    """Raise ValueError where a client has several rows."""
    ids = trace.columns["client"]
    order = np.argsort(ids, kind="stable")
    again = np.flatnonzero(ids[order][1:] == ids[order][:-1])
    if len(again):
        first, second = order[again[0]], order[again[0] + 1]
        raise ValueError(f"{trace.row(second)}: client {ids[second]} has a row already ({trace.row(first)}); keep one")


def check_all(trace: Trace, training: int) -> None:
    """Raise ValueError where one of the clients 0..training-1 has no row."""
    has = np.zeros(training, bool)
    ids = trace.columns["client"]
    has[ids[ids < training]] = True
    if not has.all():
        lacking = f"client {int(np.argmin(has))} has no row, and {training} clients (0..{training - 1}) may train"
        raise ValueError(f"{trace.file}: {lacking}; give each a row, or simulate fewer clients")


def check_digest(digest: str, found: str, *names: str) -> None:
    """Raise ValueError where a file has not the content that the run began with."""
    if not digest or digest == found:
        return
    old = digest.split(",")
    pairs = zip(found.split(","), (name for name in names if name), strict=True)
    changed = [name for (now, name), before in zip(pairs, [*old, "", ""], strict=False) if now != before]
    what = f"{changed[0] if changed else names[0]} has changed since the run began, whose devices it gave"
    raise ValueError(f"profile.digest = {digest!r}: {what}; bring the old file back, or begin a run without digest")


def spells_of(trace: Trace, told: str, period: float, training: int) -> RecordedSpells:
    """The spells in a trace, sorted. Raises ValueError for wrong ones."""
    start, end = (trace.columns[name] for name in ("start", "end"))
    trace.refuse(start < 0, "start", "must be virtual seconds from the run's beginning, from 0 on")
    trace.refuse(nanoseconds(end) <= nanoseconds(start), "end", "must be later than the start of the spell")
    if period:
        trace.refuse(end > period, "end", f"is beyond profile.period = {period:g}")
    ids = trace.columns["client"]
    order = np.lexsort((start, ids))
    ids, start, end = ids[order], nanoseconds(start[order]), nanoseconds(end[order])
    bad = np.flatnonzero((ids[1:] == ids[:-1]) & (start[1:] < end[:-1]))
    if len(bad):
        i, j = order[bad[0]], order[bad[0] + 1]
        what = f"this spell of client {ids[bad[0]]} begins before that of {trace.row(i)} has ended"
        raise ValueError(f"{trace.row(j)}: start = {trace.columns['start'][j]:g}: {what}")
    check_all(trace, training)
    known, first = np.unique(ids, return_index=True)
    bounds = np.append(first, len(ids)).astype(np.int64)
    return RecordedSpells(
        f"profile.spells = {told!r}", known, bounds, start, end, whole_nanoseconds("profile.period", period)
    )
