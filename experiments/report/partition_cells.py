"""The partitions of a page: which client owns how many samples of which label, in at most 200 columns."""

import hashlib
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np

from experiments.analysis.partition_groups import grouped_shares
from experiments.report.found_runs import Found

CLIENTS, LABELS = 100, 200
"""Most clients that have a column of their own; most groups of them, and most labels."""
MOST = 12
"""Most partitions on a page."""


def partitions(found: Sequence[Found], notes: list[str]) -> list[dict[str, Any]]:
    """The different partitions of the runs, each with the labels of its runs.

    Each is ``runs``, ``x`` and ``y`` (clients or groups of them, labels), ``z`` (a row a label), ``unit`` (what ``z``
    is), ``note``, and ``clients``, their number.
    """
    alike: dict[str, dict[str, Any]] = {}
    left_out = 0
    for one in found:
        try:
            frame = one.log.partition
        except (ValueError, OSError) as error:
            if "has no partition.json" not in str(error):
                notes.append(str(error))
            continue
        counts = frame.to_numpy()
        key = hashlib.sha256(repr(list(frame.columns)).encode() + counts.tobytes()).hexdigest()
        if key in alike:
            alike[key]["runs"] += [one.label] * (one.label not in alike[key]["runs"])
        elif len(alike) == MOST or not counts.size:
            left_out += 1
        else:
            alike[key] = {"runs": [one.label], **cells(counts, list(map(str, frame.index)), list(map(str, frame)))}
    if left_out:
        notes.append(f"the page has the first {MOST} partitions; those of {left_out} runs are left out")
    return list(alike.values())


def cells(counts: np.ndarray, clients: Sequence[str], labels: Sequence[str]) -> dict[str, Any]:
    """One partition as a table of colours: ``counts`` (C, K)."""
    note = ""
    if len(labels) > LABELS:
        note = f" The {LABELS} most frequent of {len(labels)} labels are shown."
        kept = np.sort(np.argsort(-counts.sum(0), kind="stable")[:LABELS])
        counts, labels = counts[:, kept], [labels[k] for k in kept]
    common = {"clients": len(counts), "y": list(labels)}
    if len(counts) <= CLIENTS:
        return {**common, "x": list(clients), "z": counts.T.tolist(), "unit": "samples", "note": note.strip()}
    if len(labels) == 1:
        groups = np.array_split(np.sort(counts[:, 0])[::-1], LABELS)
        ends = np.cumsum([0, *map(len, groups)])
        shown, unit, order = np.array([[g.mean() for g in groups]]), "samples, mean", "samples"
    else:
        shown, ends = grouped_shares(counts, LABELS)
        unit, order = "share, mean", "their most frequent label and its share"
    said = f"{len(counts)} clients, sorted by {order}, in {shown.shape[1]} groups of equal size: means.{note}"
    x = [f"{a + 1}-{b}" for a, b in pairwise(ends)]
    return {**common, "x": x, "z": np.round(shown, 3).tolist(), "unit": unit, "note": said}
