"""Tables of a page: what happened in the runs besides rounds."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from experiments.report.found_runs import Found, text
from experiments.report.result_tables import Table, table

NO_NEWS = ("start", "worker_started", "node_found", "plan")
"""Events that every run of a kind has; they are counted."""
EACH, MOST = 100, 1000
"""Events that are listed of a run, and of all runs together; all are counted."""
LETTERS = 100_000
"""Of all events together, so that a page stays small: where there are many, each is cut short."""


def event_tables(found: Sequence[Found]) -> list[Table]:
    """How many events of each kind a run has, and the first of them (of failures the last)."""
    counts = {one.name: Counter(map(str, one.log.events["event"])) for one in found}
    kinds = [kind for kind in dict.fromkeys(k for c in counts.values() for k in c) if kind != "start"]
    if not kinds:
        return []
    every = table(
        "Events by kind", ["run", *kinds], [[name, *(c[kind] or None for kind in kinds)] for name, c in counts.items()]
    )
    rows: list[list[object]] = []
    each = max(5, min(EACH, MOST // len(found)))
    left_out = 0
    for one in found:
        own = [row for row in one.log.events.to_dict("records") if row["event"] not in NO_NEWS]
        begin = one.log.events["time"].min()
        shown = own if len(own) <= each else [*own[: each // 2], *own[-(each - each // 2) :]]
        left_out += len(own) - len(shown)
        rows += [_row(one.name, row, begin) for row in shown]
    most = max(100, LETTERS // max(1, len(rows)))
    rows = [[*row[:-1], text(row[-1], most)] for row in rows]
    note = f"{left_out} events between the first and the last ones of a run are not listed." if left_out else ""
    listed = table("Failures and other events", ["run", "s after start", "round", "event", "what"], rows, note)
    return [every, listed] if rows else [every]


def _row(name: str, row: Mapping[Any, Any], begin: float) -> list[object]:
    facts = {str(k): v for k, v in row.items() if k not in ("time", "event", "round", "reason") and _is_there(v)}
    reason = [str(row["reason"])] if _is_there(row.get("reason")) else []
    what = "; ".join([*reason, *(f"{key} = {text(_whole(value))}" for key, value in facts.items())])
    number = int(row["round"]) if _is_there(row.get("round")) else None
    return [name, round(float(row["time"]) - begin, 1) if _is_there(row["time"]) else None, number, row["event"], what]


def _is_there(value: object) -> bool:
    return value is not None and (isinstance(value, list | dict) or value == value)


def _whole(value: object) -> object:
    """A number that pandas made a float, as the whole number that it is."""
    return int(value) if isinstance(value, float) and value.is_integer() else value
