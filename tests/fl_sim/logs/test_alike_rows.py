"""Lines with the same names are read as CSV: with the values of JSON's reader, or not at all."""

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from fl_sim.logs import alike_rows, many_rows

ROW = {"round": 1, "phase": "train", "reason": None, "loss": 0.1, "flag": True, "weight": 3.0}


class _Bytes(io.RawIOBase):
    def __init__(self, content: bytes) -> None:
        self._content = io.BytesIO(content)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        return self._content.readinto(buffer)


def lines(rows: list[dict[str, Any]]) -> bytes:
    return b"".join(json.dumps(r, ensure_ascii=False, separators=(",", ":")).encode() + b"\n" for r in rows)


def columns(content: bytes) -> dict[str, Any] | None:
    return alike_rows.columns_of(lambda: _Bytes(content), 1024)


READ: dict[str, list[dict[str, Any]]] = {
    "what a round writes": [ROW],
    "numbers beside null": [{"a": 1, "b": 0.5}, {"a": None, "b": None}],
    "null, then numbers": [{"a": None}] * 100 + [{"a": 7}] + [{"a": 2.5}, {"a": None}],
    "whole numbers, then others": [{"a": 1}] * 400 + [{"a": 0.5}],
    "one odd text": [
        {"a": "x}"},
        {"a": "tab\t, without comma".replace(",", ";")},
        {"a": None},
        {"a": "{Größe} \\ \" '"},
    ],
    "floats": [{"a": x} for x in (0.1, 1 / 3, 5e-324, 1.7976931348623157e308, -0.0, 1e-7, 123456789.123456789, 1e22)],
    "-0": [{"a": 0}, {"a": -1}],
}


@pytest.mark.parametrize("kind", READ)
def test_values_are_those_of_the_lines(kind: str) -> None:
    """Exactly, and with pandas' type for them: int64 only where there is neither a null nor a fraction."""
    rows = READ[kind] * 3
    found = columns(lines(rows))
    assert found is not None
    assert list(found) == list(rows[0])
    for name, column in found.items():
        values = column.tolist() if isinstance(column, np.ndarray) else column.to_pylist()
        assert values == [row[name] for row in rows]
        expected = pd.DataFrame.from_records(rows)[name].dtype
        if expected in (np.int64, np.float64, np.bool_):
            assert column.to_numpy().dtype == expected


@pytest.mark.parametrize(
    "last",
    [
        {**ROW, "own": 1},
        json.dumps(ROW, separators=(",", ":")).replace("loss", "lose").encode() + b"\n",
        json.dumps(ROW, separators=(",", ":")).replace("weight", "height").encode() + b"\n",
        {name: ROW[name] for name in ROW if name != "flag"},
        dict(reversed(list(ROW.items()))),
        {**ROW, "reason": "a, b"},
        {**ROW, "round": "1"},
        {**ROW, "loss": "x"},
        {**ROW, "phase": 5},
        {**ROW, "flag": None},
        {**ROW, "reason": [1]},
        {**ROW, "reason": {"a": 1}},
        {**ROW, "loss": float("nan")},
        {**ROW, "weight": float("inf")},
        {**ROW, "phase": "\ud800"},
        b'{"round":1}\n',
        b"\n",
        lines([ROW]).replace(b"}", b"}}"),
        lines([ROW]).replace(b"}", b""),
        lines([ROW]).replace(b"null", b"nul"),
        lines([ROW]).replace(b"0.1", b"0.1.1"),
        lines([ROW]).replace(b'"train"', b'"train'),
        lines([ROW]).replace(b'"train"', b'"\xff"'),
        lines([ROW]).replace(b'"train"', b'"\t"'),
    ],
)
def test_what_differs_in_one_line_is_left_to_another_reader(last: Any) -> None:
    if isinstance(last, dict):
        last = json.dumps(last, separators=(",", ":")).encode() + b"\n"
    assert columns(lines([ROW]) * 100 + last) is None
    assert columns(lines([ROW]) * 100) is not None


@pytest.mark.parametrize("first", [b"\n", b"{}\n", b"5\n", b"[1]\n", b'{"a":1', b'{"a":1}{"a":2}\n'])
def test_a_first_line_that_is_no_row(first: bytes) -> None:
    assert columns(first + lines([ROW])) is None


def test_large_whole_numbers_keep_their_digits_or_are_left_to_another_reader(tmp_path: Path) -> None:
    file = tmp_path / "clients.jsonl"
    file.write_bytes(lines([{"a": 2**53 + 1, "b": 1}, {"a": -(2**60) - 3, "b": 2}]))
    frame = many_rows.frame_of(file, file.stat().st_size)
    assert frame is not None
    assert frame["a"].tolist() == [2**53 + 1, -(2**60) - 3]
    for rows in ([{"a": 2**64}, {"a": 1}], [{"a": 2**53 + 1}, {"a": 0.5}]):
        file.write_bytes(lines(rows))
        assert many_rows.frame_of(file, file.stat().st_size) is None


def test_a_look_at_some_lines_finds_other_rows_without_reading_all(tmp_path: Path) -> None:
    """Among 400 lines, a tenth of others, or one at the end; lines beyond the end that is read do not count."""
    file, other = tmp_path / "clients.jsonl", {**ROW, "own": 1}
    for rows, alike in (
        ([ROW], True),
        ([ROW] * 400, True),
        ([ROW] * 399 + [other], False),
        ([other] * 40, True),
        ([ROW] * 99 + [dict(reversed(ROW.items()))], False),
    ):
        file.write_bytes(lines(rows) + b'{"round":1}\n')
        assert alike_rows.likely(file, len(lines(rows))) is alike
        assert not alike_rows.likely(file, file.stat().st_size)
    file.write_bytes(lines(([ROW] * 36 + [other] * 4) * 10 + [ROW]))
    assert not alike_rows.likely(file, file.stat().st_size)
    for damaged in (b"\n", b"[]\n", b"{\n"):
        file.write_bytes(damaged)
        assert not alike_rows.likely(file, len(damaged))


@pytest.mark.parametrize(
    "batches", [([True], [None]), (["1"], [2]), ([True], [1]), ([2**60 + 1], [0.5]), (["x"], [None], [0.5])]
)
def test_batches_whose_values_have_no_common_type_are_left_to_another_reader(batches: tuple[list[Any], ...]) -> None:
    with pytest.raises((pa.ArrowException, ValueError)):
        alike_rows._joined([pa.array(batch) for batch in batches], len(batches))
    assert alike_rows._joined([pa.array([1]), pa.array([None]), pa.array([0.5])], 3).to_pylist() == [1.0, None, 0.5]
