"""What a page shows of runs, as data that JSON can hold and that is small enough for a page below 6 MB."""

import json
import time
from collections.abc import Callable, Sequence
from typing import Any

from experiments.report.curve_points import AXES, LEVELS, axes_of, curves_of, metrics_of
from experiments.report.event_tables import event_tables
from experiments.report.found_runs import Found, Runs, state
from experiments.report.partition_cells import partitions
from experiments.report.result_tables import Table, result_tables, t_values
from experiments.report.setting_tables import environment_table, setting_tables
from experiments.report.sweep_maps import sweep_tables
from fl_sim.logs.round_columns import ROUNDS

BYTES = 1_100_000
"""Most bytes of the data; plotly's script has 4.8 MB."""


def content(runs: Runs, most_bytes: int = BYTES) -> dict[str, Any]:
    """What a page shows.

    Parameters
    ----------
    runs : Runs
        The runs, as from ``read_runs``.
    most_bytes : int
        Where the data would be larger, curves get fewer points than 1000; a note on the page says how many.
    """
    found, notes = list(runs.found), list(runs.notes)
    maps: list[dict[str, Any]] = []
    makers: dict[str, Callable[[], list[Table]]] = {
        "sweep": lambda: sweep_tables(found, maps),
        "results": lambda: result_tables(found, notes),
        "settings": lambda: setting_tables(found),
        "events": lambda: event_tables(found),
        "environment": lambda: [environment_table(found)],
    }
    tables = {what: _tried(what, make, notes) for what, make in makers.items()} if found else {}
    metrics = metrics_of([one.log for one in found])
    has_axis = {name for one in found for name in axes_of(one.log)}
    groups = list(dict.fromkeys(one.label for one in found))
    page: dict[str, Any] = {
        "made": time.strftime("%Y-%m-%d %H:%M:%S %z"),
        "axes": {name: label for name, label in AXES.items() if name in has_axis},
        "metrics": {name: ROUNDS[name].meaning if name in ROUNDS else "" for name in metrics},
        "groups": groups,
        "t": t_values(),
        "tables": tables,
        "maps": maps,
        "partitions": partitions(found, notes),
        "notes": list(dict.fromkeys(notes)),
    }
    known = [
        {
            "name": one.name,
            "label": one.label,
            "group": groups.index(one.label),
            "seed": one.log.config.get("seed"),
            "state": state(one.log),
            "rounds": len(one.log.rounds),
        }
        for one in found
    ]
    points, curves = _curves(found, metrics, most_bytes - len(as_json(page)) - len(as_json(known)))
    if without := sum(bool(row["rounds"]) and not own["axes"] for row, own in zip(known, curves, strict=True)):
        page["notes"].append(f"curves of {without} runs would not fit, and are left out; name fewer runs to see them")
    page["points"], page["thinned"] = points, any(len(one.log.rounds) > points + 1 for one in found)
    page["runs"] = [{**row, **own} for row, own in zip(known, curves, strict=True)]
    return page


def _curves(found: Sequence[Found], metrics: Sequence[str], most_bytes: int) -> tuple[int, list[dict[str, Any]]]:
    """The curves of each run at the first of ``LEVELS`` that fits, and this level's number of points.

    Where not even the last level fits, the last runs get no curves.
    """
    for first, others in LEVELS:
        curves = [curves_of(one.log, metrics, first, others) for one in found]
        if len(as_json(curves)) <= most_bytes:
            return first, curves
    empty: dict[str, Any] = {"axes": {}, "metrics": {}}
    left = most_bytes - len(as_json([empty] * len(curves)))
    for number, own in enumerate(curves):
        left -= len(as_json(own))
        if left < 0:
            curves[number] = empty
    return first, curves


def _tried(what: str, make: Callable[[], list[Table]], notes: list[str]) -> list[Table]:
    """Tables; where a log is too odd for them, the page says so and shows the rest."""
    try:
        return make()
    except Exception as error:
        notes.append(f"the tables of {what} could not be made: {type(error).__name__}: {error}")
        return []


def as_json(value: object) -> str:
    """JSON that is also safe inside an HTML page's ``script`` element."""
    text = json.dumps(value, allow_nan=False, separators=(",", ":"), default=str)
    for character in "<>&\u2028\u2029":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return text
