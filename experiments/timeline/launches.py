"""From a run's log to what each device did when: the launches of a run, and the instants at which the model changed.

Legend: n launches (a client's work from a message to its reply).
"""

from typing import NamedTuple

import numpy as np
import pandas as pd

from fl_sim.logs.reader import RunLog


class Timeline(NamedTuple):
    """What a run's devices did, in virtual seconds."""

    launches: pd.DataFrame
    """(n rows) ``client, begin, end, full, down, up, used, speed_class, waits``: the work ends at ``end``, where the
    round does, or would at ``full``; ``down`` and ``up`` are the parts from ``begin`` to ``full`` that messages take,
    ``used`` whether the work counted, ``waits`` until when the device waits after it."""
    steps: np.ndarray
    """(rounds,) when each round, or server step, ended."""
    asynchronous: bool


def timeline(log: RunLog) -> Timeline:
    """The timeline of a run. Raises ValueError for a run without virtual time, and without rounds."""
    rounds = log.rounds[log.rounds["round"] > 0]
    if rounds.empty or rounds["virtual_time"].isna().all():
        why = "has no round yet" if rounds.empty else "its rounds have no virtual_time, as those of devices and of apps"
        raise ValueError(f"{str(log.path)!r}: {why}: there is no timeline to draw")
    rows = log.clients[(log.clients["phase"] == "train") & log.clients["virtual_seconds"].notna()]
    if rows.empty:
        raise ValueError(f"{str(log.path)!r}: its clients have no virtual_seconds; run it again with this version")
    ends = log.rounds.set_index("round")["virtual_time"].astype(float)
    asynchronous = "version" in rounds and bool(rounds["version"].notna().any())
    before = rows["round"].map(ends.shift(1).fillna(0.0)).to_numpy(np.float64)
    begin = np.where(rows["started"].notna(), rows["started"], before).astype(np.float64)
    end = begin + rows["virtual_seconds"].to_numpy(np.float64)
    closed = rows["round"].map(ends).to_numpy(np.float64)
    launches = pd.DataFrame(
        {
            "client": rows["client"].to_numpy(np.int64),
            "begin": begin,
            "end": end if asynchronous else np.minimum(end, closed),
            "down": rows["virtual_down"].fillna(0.0).to_numpy(np.float64),
            "up": rows["virtual_up"].fillna(0.0).to_numpy(np.float64),
            "used": (rows["status"] == "completed").to_numpy(),
            "speed_class": rows["speed_class"].to_numpy(np.float64),
        }
    )
    launches["full"] = end
    waits = np.where(launches["used"], closed, launches["end"])  # who vanished does not wait
    launches["waits"] = _next_launch(log, launches) if asynchronous else waits
    return Timeline(launches.reset_index(drop=True), rounds["virtual_time"].to_numpy(np.float64), asynchronous)


def _next_launch(log: RunLog, launches: pd.DataFrame) -> np.ndarray:
    """(n,) until when a device waits after a launch of an asynchronous run.

    Where a fixed set of workers computes, a worker that waits is released later. Elsewhere another client replaces it.
    """
    concurrency = log.config.get("concurrency") or 0
    fixed = bool(concurrency) and launches["client"].nunique() <= concurrency
    following = launches.sort_values("begin").groupby("client")["begin"].shift(-1).reindex(launches.index)
    return np.asarray((following if fixed else launches["end"]).fillna(launches["end"]), np.float64)


def busiest(launches: pd.DataFrame, count: int) -> pd.DataFrame:
    """The launches of the ``count`` devices that work longest; of equal ones those with the smaller ids."""
    busy = (launches["end"] - launches["begin"]).groupby(launches["client"]).sum()
    chosen = busy.sort_index().sort_values(ascending=False, kind="stable").index[:count]
    return launches[launches["client"].isin(chosen)]


def window(found: Timeline, begin: float, end: float | None, bars: int) -> tuple[float, float]:
    """From when to when the picture reaches, in virtual seconds.

    Without ``end`` it ends with the run, or where a device has done about ``bars`` launches, as more cannot be told
    apart. Raises ValueError where nothing is in it.
    """
    last = max(float(found.steps[-1]), float(found.launches["end"].max()) if found.asynchronous else 0.0)
    until = last if end is None else min(end, last)
    rows = found.launches[found.launches["end"] > begin]
    if end is None and len(rows):
        ends = np.sort(rows["end"].to_numpy())
        per_device = min(len(ends), bars * rows["client"].nunique())
        by_rounds = found.steps[found.steps > begin]
        limit = by_rounds[min(bars, len(by_rounds)) - 1] if not found.asynchronous else ends[per_device - 1]
        until = min(until, float(limit))
    if not begin < until or not ((rows["begin"] < until).any()):
        raise ValueError(f"from = {begin:g}, until = {until:g}: nothing happens then; the run ends at {last:g}")
    return begin, until
