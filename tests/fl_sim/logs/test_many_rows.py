"""The fast reader of many rows gives what the plain one gives: values, types, nulls, lists, names and errors."""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from fl_sim.logs import many_rows, reader
from fl_sim.logs.columns import COLUMNS

ROW = {"round": 1, "client": 3, "phase": "train", "status": "completed", "reason": None, "loss": 0.1}
FEW = 400
"""Rows of a kind; with blocks of 4 kB they fill several."""


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(many_rows, "BLOCK", 4096)


def write(folder: Path, rows: list[dict[str, Any]] | bytes) -> Path:
    file = folder / "clients.jsonl"
    lines = rows if isinstance(rows, bytes) else b"".join(line(row) for row in rows)
    file.write_bytes(lines)
    return file


def line(row: dict[str, Any]) -> bytes:
    return json.dumps(row, ensure_ascii=False, separators=(",", ":")).encode() + b"\n"


def both(file: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The frames of the plain reader and of the fast one."""
    frames = []
    for many in (1 << 60, 1):
        monkeypatch.setattr(reader, "MANY", many)
        frames.append(reader._frame(file, COLUMNS["clients"]))
    return frames[0], frames[1]


def assert_same(plain: pd.DataFrame, fast: pd.DataFrame) -> None:
    """Also where pandas' own comparison takes None for NaN, and 1 for 1.0 and True."""
    pd.testing.assert_frame_equal(plain, fast, check_exact=True)
    for name in plain:
        if plain[name].dtype == object:
            kinds = [[(type(v), v is None or v != v) for v in frame[name]] for frame in (plain, fast)]
            assert kinds[0] == kinds[1], name


MIXED = [
    ROW,
    {**ROW, "reason": 'Traceback: {"reason":null} \\ "reason": null', "status": "failed", "examples": 7, "loss": None},
    {"round": 2, "client": 4, "phase": "train", "status": "dropped"},
    {**ROW, "phase": "personal", "unseen": False, "accuracy": 2 / 3, "held_out": 3.0},
    {**ROW, "phase": "personal", "unseen": None, "own": "2026-11-30T11:00:00", "Größe": 5},
]
KINDS: dict[str, list[dict[str, Any]]] = {
    "plain rows": [ROW],
    "failures, stragglers, evaluations": MIXED,
    "missing and null": [{"a": None, "flag": True}, {"flag": None}, {"a": None}, {}],
    "all null": [{"round": 1, "reason": None, "own": None, "unseen": None, "loss": None}],
    "big whole numbers": [{"a": 2**53 + 1, "b": 2**60 + 3}, {"a": -(2**53) - 1, "b": None}],
    "numbers beyond 64 bits": [{"a": 2**64 + 1}, {"a": 1}],
    "unsigned numbers": [{"a": 2**63 + 1}, {"a": 1}],
    "whole numbers and others": [{"a": 1, "b": None}, {"a": 2.5, "b": 3}],
    "whole numbers beside a float": [{"a": 2**53 + 1}, {"a": 0.5}],
    "floats": [{"a": x} for x in (0.1, 1 / 3, 5e-324, 1.7976931348623157e308, -0.0, 1e-7, 123456789.123456789, 1e22)],
    "lists": [{"class_accuracy": [0.5, None, 1.0], "phase": "personal"}, {"phase": "train"}, {"class_accuracy": None}],
    "lists of lists and of text": [{"a": [[1, 2], [3, 4]]}, {"a": []}, {"a": [[0.5]]}, {"b": ["x", None]}],
    "dicts": [{"a": {"x": 1, "a": None}}, {"a": {"y": "z"}}, {"a": None}],
    "times and dates": [{"reason": "2026-11-30"}, {"reason": "no time"}, {"own": "2026-11-30 11:00:00"}],
    "truth values": [{"a": True, "b": 1}, {"a": False, "b": 0}],
    "truth values and numbers": [{"a": True}, {"a": 1}],
    "text and numbers": [{"a": "x"}, {"a": 1}],
    "names in another order": [{"zz": 1, "round": 2}, {"aa": 1, "zz": 2}, {"mm": 3}],
    "names that need an escape": [{'a"b': 1, "c\\d": None, "tab\t": True, "日本": "x"}, {"日本": None}],
    "no columns": [{}],
    "text that is odd": [{"reason": "\u2028 \x7f \U0001f600 \\u0000 \x00 '"}, {"reason": ""}],
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("late", [False, True])
def test_the_fast_reader_gives_what_the_plain_one_gives(
    kind: str, late: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With all kinds of rows from the first line on, and with the odd ones after blocks of plain ones."""
    rows = [ROW] * (FEW if late else 0) + KINDS[kind] * (1 if late else FEW // len(KINDS[kind]))
    assert_same(*both(write(tmp_path, rows), monkeypatch))


def test_it_is_pyarrow_that_reads_what_a_run_writes(tmp_path: Path) -> None:
    lists = [{**ROW, "class_accuracy": [0.5, None], "unseen": True}]
    for rows in (KINDS["plain rows"], MIXED, lists, KINDS["missing and null"], KINDS["times and dates"]):
        file = write(tmp_path, rows * FEW)
        assert many_rows.frame_of(file, file.stat().st_size) is not None
    for kind in ("numbers beyond 64 bits", "whole numbers beside a float", "text and numbers"):
        file = write(tmp_path, KINDS[kind] * FEW)
        assert many_rows.frame_of(file, file.stat().st_size) is None, kind


def test_random_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    draw = np.random.default_rng(0)
    values = [None, 1, 2**40, 0.25, math.pi, True, "text", "2026-01-01", [1, None], "null", ""]
    for _ in range(6):
        kinds = {name: [values[i] for i in draw.integers(0, len(values), 2)] for name in ("a", "reason", "unseen", "b")}
        rows = []
        for _ in range(300):
            names = [name for name in draw.permutation(list(kinds)) if draw.random() < 0.8]
            rows.append({**ROW, **{name: kinds[name][int(draw.integers(0, 2))] for name in names}})
        assert_same(*both(write(tmp_path, rows), monkeypatch))


@pytest.mark.parametrize("torn", [b"", b'{"round":1,"cl', b"{"])
def test_a_torn_last_line_is_left_out(torn: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = write(tmp_path, line(ROW) * FEW + torn)
    plain, fast = both(file, monkeypatch)
    assert len(fast) == FEW
    assert_same(plain, fast)
    assert len(reader._frame(write(tmp_path, torn), COLUMNS["clients"])) == 0


@pytest.mark.parametrize(
    "damaged",
    [
        b"\n",
        b'{"round":1\n',
        b'"round":1}\n',
        b'{"round":1}{"round":2}\n',
        b'{"reason":"\xff"}\n',
        b'{"a":1,\n"b":2}\n',
    ],
)
def test_a_damaged_line_is_named(damaged: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = write(tmp_path, line(ROW) * FEW + damaged + line(ROW) * FEW)
    for many in (1 << 60, 1):
        monkeypatch.setattr(reader, "MANY", many)
        with pytest.raises(ValueError, match=rf"clients\.jsonl: line {FEW + 1} is damaged"):
            reader._frame(file, COLUMNS["clients"])


def test_rows_that_were_written_by_another_program_are_read_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for text in ('{"round" : 1, "reason" : null}\n', '{"round": 1, "reason": null}\r\n', '{"\\u0072eason":null}\n'):
        assert_same(*both(write(tmp_path, (text * FEW).encode()), monkeypatch))
