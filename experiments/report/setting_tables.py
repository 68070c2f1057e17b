"""Tables of a page: settings that differ, settings that all runs share, where the runs were made."""

from collections.abc import Mapping, Sequence
from typing import Any

from experiments.report.found_runs import Found, text
from experiments.report.result_tables import Table, table
from fl_sim.dotted import flatten
from fl_sim.logs.many_runs import differing

LIBRARIES = ("python", "torch", "flwr", "ray", "numpy")
"""Versions that are shown where the summary has them; others where they differ."""
OF_START = ("commit", "machine", "cpu", "cores", "engine", "note")
"""What the event ``start`` says of where a run was made."""


def setting_tables(found: Sequence[Found]) -> list[Table]:
    """The settings in which runs differ, a row a run; and those that are the same in all of them."""
    differ = differing({one.name: one.log.config for one in found})
    keys = list(next(iter(differ.values()), {}))
    tables = []
    if keys:
        rows = [[one.name, *(_plain(differ[one.name].get(key)) for key in keys)] for one in found]
        tables.append(table("Settings that differ", ["run", *keys], rows))
    same = {key: value for key, value in flatten(found[0].log.config).items() if key not in keys}
    note = "Of the first run that is listed; folders of data and results may differ." if len(found) > 1 else ""
    rows = [[key, text(value)] for key, value in same.items()]
    return [*tables, table("Settings of all runs" if len(found) > 1 else "Settings", ["setting", "value"], rows, note)]


def _plain(value: Any) -> object:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    return value if number or value is None else text(value)


def environment_table(found: Sequence[Found]) -> Table:
    """Where runs were made: a row for the runs that have it in common."""
    alike: dict[tuple[tuple[str, str], ...], list[str]] = {}
    for one in found:
        alike.setdefault(tuple(_environment(one).items()), []).append(one.name)
    columns = dict.fromkeys(key for facts in alike for key, _ in facts)
    rows: list[list[object]] = []
    for known, names in alike.items():
        whom = ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
        rows.append([whom, *(dict(known).get(column) for column in columns)])
    return table("Environment", ["runs", *columns], rows, "Versions are written when a run has ended.")


def _environment(one: Found) -> dict[str, str]:
    events = one.log.events
    begun = events[events["event"].isin(["start", "resumed"])].tail(1).to_dict("records")
    first = events[events["event"] == "start"].head(1).to_dict("records")
    facts: dict[Any, Any] = {**(first[0] if first else {}), **{k: v for r in begun for k, v in r.items() if v == v}}
    known = {name: text(facts[name]) for name in OF_START if name in facts and facts[name] == facts[name]}
    versions = one.log.summary.get("versions")
    found = {str(k).lower(): str(v) for k, v in versions.items()} if isinstance(versions, Mapping) else {}
    known |= {name: found[name] for name in LIBRARIES if name in found}
    return {**known, "columns": f"schema {one.log.schema}"}
