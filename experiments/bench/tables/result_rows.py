"""From measurements to the figures of bench.json: a row for each workload, and one for each system on a workload."""

import statistics
from collections.abc import Sequence
from typing import Any

from experiments.bench.children.measurements import SystemMeasurements, WorkMeasurements
from experiments.bench.systems import SYSTEMS
from experiments.bench.workloads.catalogue import Work

Row = dict[str, Any]


def spread(values: Sequence[float]) -> dict[str, float] | None:
    """Median, smallest and largest value; None if there are no values."""
    return {"median": statistics.median(values), "min": min(values), "max": max(values)} if values else None


def ratios(seconds: Sequence[float], reference: Sequence[float]) -> list[float]:
    """Ratios turn by turn, in which a disturbance that slowed both systems cancels."""
    return [a / b for a, b in zip(seconds, reference, strict=False)]


def work_row(measured: WorkMeasurements) -> Row:
    """The row of a workload: its description, and how fast the machine computes a matrix product."""
    work, yardstick = measured.work, measured.yardstick
    return {
        "work": work.name,
        "group": work.group,
        "variant": work.variant or None,
        "what": work.what,
        "go": "run" if work.whole else "round",
        "goes": work.goes,
        "reference": work.reference or None,
        "random_arrays": bool(work.task) and work.random,
        "why_random": measured.prepared.get("why") or None,
        "parameters": measured.prepared.get("parameters"),
        "matmul_gflops": spread([facts["gflops"] for facts in yardstick if facts["gflops"]]),
        "gflop_a_sample": yardstick[0]["gflop_a_sample"] if yardstick else None,
    }


def rows(measured: WorkMeasurements) -> list[Row]:
    """The rows of all systems on a workload."""
    about = work_row(measured)
    by_name = {system.system: system for system in measured.systems}
    reference = by_name.get(measured.work.reference)
    examples = [[facts.get("examples") for facts in one.facts] for one in measured.systems if one.status == "ok"]
    return [row(measured.work, one, reference, about, majority(examples)) for one in measured.systems]


def majority(examples: Sequence[Sequence[object]]) -> list[object]:
    """For each repetition the number of samples that most systems trained on."""
    return [statistics.mode(column) for column in zip(*examples, strict=False)]


def row(
    work: Work,
    measured: SystemMeasurements,
    reference: SystemMeasurements | None,
    about: Row,
    expected: Sequence[object],
) -> Row:
    """The row of one system on a workload.

    Parameters
    ----------
    work : the workload as it was run.
    measured : what was measured of the system.
    reference : what was measured of the system whose seconds divide these; None: no ratios.
    about : the row of the workload.
    expected : number of samples of each repetition; with other numbers the system did not do the same work.
    """
    ok = measured.status == "ok"
    trained = [facts.get("examples", 0) for facts in measured.facts]
    updates = [facts.get("updates", 0) for facts in measured.facts]
    gflops = [count * (about["gflop_a_sample"] or 0) / s for count, s in zip(trained, measured.seconds, strict=True)]
    peak = (about["matmul_gflops"] or {}).get("median")
    shown = ok and about["gflop_a_sample"] is not None
    return {
        "work": work.name,
        "system": measured.system,
        "what": SYSTEMS[measured.system].what,
        "status": measured.status,
        "reason": measured.reason or None,
        "seconds": spread(measured.seconds),
        "each": measured.seconds,
        "ratio": spread(ratios(measured.seconds, reference.seconds))
        if ok and reference is not None and reference.status == "ok"
        else None,
        "cpu_s": spread([facts["cpu_s"] for facts in measured.facts if "cpu_s" in facts]),
        "updates_per_s": statistics.median(n / s for n, s in zip(updates, measured.seconds, strict=True))
        if measured.seconds
        else None,
        "startup_s": statistics.median(measured.startup_s) if measured.startup_s else None,
        "setup_s": statistics.median(measured.setup_s) if measured.setup_s else None,
        "to_first_round_s": spread(
            [facts["to_first_round_s"] for facts in measured.facts if "to_first_round_s" in facts]
        ),
        "peak_bytes": measured.peak[0] or None,
        "peak_rss_bytes": measured.peak[1] or None,
        "gflops": statistics.median(gflops) if shown and gflops else None,
        "matmul_share": statistics.median(gflops) / peak if shown and gflops and peak else None,
        "accuracy": None if work.random or not ok else measured.accuracy,
        "examples": trained,
        "same_work": not work.task or trained == list(expected)[: len(trained)],
    }
