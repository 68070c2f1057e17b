"""The curves of a page: at most so many points each, as base64 of 32-bit floats.

Legend: R rounds of a run, P points of a curve.
"""

import base64
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from fl_sim.logs.reader import RunLog

AXES = {
    "round": "round",
    "seconds": "wall time, evaluation included (s)",
    "virtual_time": "virtual time (s)",
    "bytes": "to and from clients (MB)",
}
"""What may be the horizontal axis, and its label."""
LEVELS = ((1000, 1000), (1000, 400), (1000, 150), (600, 150), (350, 100), (200, 60), (100, 30), (30, 10))
"""Most points of a curve of the metrics ``FIRST``, and of the others: the first level that fits on a page is taken."""
FIRST = ("accuracy", "loss", "val_accuracy", "val_loss", "train_loss", "personal_accuracy", "drift")
"""Metrics in the order in which a page offers them; the others follow."""
OF_THE_MACHINE = ("clients", "completed", "failed", "dropped", "examples", "steps", "bytes_", "seconds", "pool_",
    "evaluate_", "rss_", "gpu_", "padded", "lr")  # fmt: skip
"""Beginnings of the columns that describe how a round went, and no model: they are offered last."""
NO_CURVES = ("round", "virtual_time")
"""Numbers that are axes."""


def places(values: np.ndarray, most: int) -> np.ndarray:
    """Which of the values (R,) a curve of at most ``most`` points shows: positions (P,), ascending.

    All that are numbers, where there are few enough (one more, since a run of 1000 rounds has the initial model too).
    Else the first, the last, and the lowest and the highest of each of ``most // 2 - 1`` parts of equal length: no peak
    is lost.
    """
    known = np.flatnonzero(np.isfinite(values))
    if len(known) <= most + 1:
        return known
    inner, parts = known[1:-1], max(1, most // 2 - 1)
    part = np.arange(len(inner)) * parts // len(inner)
    order = inner[np.lexsort((values[inner], part))]  # by part, from its lowest to its highest
    begin = np.searchsorted(part, np.arange(parts))
    highest = np.append(begin[1:], len(inner)) - 1
    return np.unique(np.concatenate([known[:1], order[begin], order[highest], known[-1:]]))


def axes_of(log: RunLog) -> dict[str, np.ndarray]:
    """The horizontal axes that a run has: for each the place (R,) of every round."""
    rounds = log.rounds
    found = {"round": rounds["round"].to_numpy(float)}
    seconds = rounds["seconds"].fillna(0) + rounds["evaluate_seconds"].fillna(0)
    moved = rounds["bytes_down"].fillna(0) + rounds["bytes_up"].fillna(0)
    if rounds["seconds"].notna().any():
        found["seconds"] = seconds.to_numpy(float).cumsum()
    if rounds["virtual_time"].notna().any():
        found["virtual_time"] = rounds["virtual_time"].to_numpy(float)
    if moved.any():
        found["bytes"] = moved.to_numpy(float).cumsum() / 1e6
    return found


def metrics_of(logs: Sequence[RunLog]) -> list[str]:
    """The columns that are worth a curve: numbers that are not the same in every round of every run."""
    seen: dict[str, set[float]] = {}
    for log in logs:
        for name in map(str, log.rounds):
            column = log.rounds[name]
            if name in NO_CURVES or not pd.api.types.is_numeric_dtype(column) or column.dtype == bool:
                continue
            known = column.to_numpy(float)
            known = known[np.isfinite(known)]
            seen.setdefault(name, set()).update((float(known.min()), float(known.max())) if len(known) else ())
    chosen = [name for name, values in seen.items() if len(values) > 1 or (name in FIRST[:2] and values)]
    quality = [n for n in chosen if not n.startswith(OF_THE_MACHINE)]
    rank = {name: number for number, name in enumerate(FIRST)}
    return [*sorted(quality, key=lambda n: rank.get(n, len(FIRST))), *(n for n in chosen if n not in quality)]


def curves_of(log: RunLog, metrics: Sequence[str], first: int, others: int) -> dict[str, Any]:
    """The curves of a run, of at most ``first`` points where the metric is one of ``FIRST``, else ``others``.

    ``axes``, name -> floats at the rounds that some curve shows, or ``[first, step, count]`` where the steps are equal.
    ``metrics``, name -> a curve: ``y``, its values, and ``at``, their positions among these rounds as 16-bit numbers,
    or as 32-bit ones ``far``; neither where it has all of them.
    """
    shown: dict[str, np.ndarray] = {}
    for name in metrics:
        if name in log.rounds and pd.api.types.is_numeric_dtype(log.rounds[name]):
            found = places(log.rounds[name].to_numpy(float), first if name in FIRST else others)
            shown |= {name: found} if len(found) else {}
    kept = np.unique(np.concatenate([np.zeros(0, int), *shown.values()]))
    curves = {}
    for name, at in shown.items():
        values = {"y": packed(log.rounds[name].to_numpy(float)[at], "<f4")}
        if len(at) < len(kept):
            values |= _positions(np.searchsorted(kept, at), len(kept))
        curves[name] = values
    return {"axes": {name: _axis(at[kept]) for name, at in axes_of(log).items()}, "metrics": curves}


def _axis(values: np.ndarray) -> str | list[float]:
    if len(values) > 2 and np.allclose(np.diff(values, 2), 0, atol=1e-9 * np.abs(values).max()):
        return [float(values[0]), float(values[-1] - values[0]) / (len(values) - 1), len(values)]
    return packed(values, "<f4")


def _positions(at: np.ndarray, most: int) -> dict[str, str]:
    return {"at": packed(at, "<u2")} if most <= 65536 else {"far": packed(at, "<u4")}


def packed(values: np.ndarray, kind: str) -> str:
    """Numbers as base64 of ``kind``: ``<f4``, ``<u2`` or ``<u4``."""
    with np.errstate(over="ignore"):
        return base64.b64encode(values.astype(kind).tobytes()).decode()


def unpacked(curve: Mapping[str, str], axis: str | list[float]) -> tuple[np.ndarray, np.ndarray]:
    """A curve's x and y again: ``axis`` is the packed axis. What the page does in JavaScript; for tests."""
    if isinstance(axis, str):
        x = np.frombuffer(base64.b64decode(axis), "<f4")
    else:
        x = (axis[0] + np.arange(int(axis[2])) * axis[1]).astype("f4")
    for name, kind in (("at", "<u2"), ("far", "<u4")):
        if name in curve:
            x = x[np.frombuffer(base64.b64decode(curve[name]), kind)]
    return x, np.frombuffer(base64.b64decode(curve["y"]), "<f4")
