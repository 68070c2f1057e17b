"""From what was seen to the figures of the table. No paper."""

import statistics
from collections.abc import Sequence
from typing import Any

from experiments.bench.children.observed import Compared, Raw
from experiments.bench.systems import SYSTEMS
from experiments.bench.workloads.catalogue import Work

Row = dict[str, Any]


def spread(values: Sequence[float]) -> dict[str, float] | None:
    """Median, smallest, largest; None of nothing."""
    return {"median": statistics.median(values), "min": min(values), "max": max(values)} if values else None


def ratios(seconds: Sequence[float], reference: Sequence[float]) -> list[float]:
    """Turn by turn, so that what hit both cancels."""
    return [a / b for a, b in zip(seconds, reference, strict=False)]


def work_row(compared: Compared) -> Row:
    """What was done, and what the machine can do."""
    work, told = compared.work, compared.yardstick
    return {
        "work": work.name,
        "group": work.group,
        "variant": work.variant or None,
        "what": work.what,
        "go": "run" if work.whole else "round",
        "goes": work.goes,
        "reference": work.reference or None,
        "random_arrays": bool(work.task) and work.random,
        "why_random": compared.prepared.get("why") or None,
        "parameters": compared.prepared.get("parameters"),
        "matmul_gflops": spread([one["gflops"] for one in told if one["gflops"]]),
        "gflop_a_sample": told[0]["gflop_a_sample"] if told else None,
    }


def rows(compared: Compared) -> list[Row]:
    """One a system, in the order asked."""
    about = work_row(compared)
    raws = {raw.system: raw for raw in compared.raws}
    reference = raws.get(compared.work.reference)
    examples = [[facts.get("examples") for facts in raw.facts] for raw in compared.raws if raw.status == "ok"]
    return [row(compared.work, raw, reference, about, majority(examples)) for raw in compared.raws]


def majority(examples: Sequence[Sequence[Any]]) -> list[Any]:
    """The samples of each go as most systems count them."""
    return [statistics.mode(column) for column in zip(*examples, strict=False)]


def row(work: Work, raw: Raw, reference: Raw | None, about: Row, wanted: Sequence[Any]) -> Row:
    """The figures of one system."""
    ok = raw.status == "ok"
    trained = [facts.get("examples", 0) for facts in raw.facts]
    updates = [facts.get("updates", 0) for facts in raw.facts]
    gflops = [count * (about["gflop_a_sample"] or 0) / s for count, s in zip(trained, raw.seconds, strict=True)]
    peak = (about["matmul_gflops"] or {}).get("median")
    shown = ok and about["gflop_a_sample"] is not None
    return {
        "work": work.name,
        "system": raw.system,
        "what": SYSTEMS[raw.system].what,
        "status": raw.status,
        "reason": raw.reason or None,
        "seconds": spread(raw.seconds),
        "each": raw.seconds,
        "ratio": spread(ratios(raw.seconds, reference.seconds))
        if ok and reference is not None and reference.status == "ok"
        else None,
        "cpu_s": spread([facts["cpu_s"] for facts in raw.facts if "cpu_s" in facts]),
        "updates_per_s": statistics.median(n / s for n, s in zip(updates, raw.seconds, strict=True))
        if raw.seconds
        else None,
        "startup_s": statistics.median(raw.startup_s) if raw.startup_s else None,
        "setup_s": statistics.median(raw.setup_s) if raw.setup_s else None,
        "to_first_round_s": spread([facts["to_first_round_s"] for facts in raw.facts if "to_first_round_s" in facts]),
        "peak_bytes": raw.peak[0] or None,
        "peak_rss_bytes": raw.peak[1] or None,
        "gflops": statistics.median(gflops) if shown and gflops else None,
        "matmul_share": statistics.median(gflops) / peak if shown and gflops and peak else None,
        "accuracy": None if work.random or not ok else raw.accuracy,
        "examples": trained,
        "same_work": not work.task or trained == list(wanted)[: len(trained)],
    }
