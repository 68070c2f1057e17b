"""A JSON-lines file whose lines all have the same names in the same order, read as if commas parted its columns.

pyarrow's reader of CSV takes half the time, and a third of the memory, that its reader of JSON takes. It parts each
line at its commas; each part must begin with the name that the first line has there, and what follows must be a number,
a text, a truth value or null. Where anything is otherwise (rows of several phases, a comma in a text, a list, a damaged
line), the answer is None, and another reader is to read the file. Only numbers are not read as strictly as JSON: 007
and .5 count as such.

Legend: N rows of one batch.
"""

import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

LONGEST = 1 << 16
"""Bytes of a first or last line that is looked at."""
LOOKS = 64
"""Lines that are looked at before all are read."""


def likely(file: Path, end: int) -> bool:
    """Whether some lines among the first ``end`` bytes, and the last, have the names of the first line."""
    with file.open("rb") as opened:
        lines = [opened.readline(LONGEST)]
        for place in range(end // LOOKS, end, end // LOOKS + 1):
            opened.seek(place)
            opened.readline()  # the rest of a line
            lines.append(opened.readline())
            if opened.tell() > end:
                lines.pop()
        opened.seek(max(0, end - LONGEST))
        lines.append(opened.read(min(LONGEST, end)).splitlines()[-1])
    try:
        rows = [json.loads(line) for line in lines if line]
    except ValueError:
        return False
    return all(isinstance(row, dict) and list(row) == list(rows[0]) for row in rows)


def columns_of(opened: Callable[[], io.RawIOBase], block: int) -> dict[str, Any] | None:
    """The columns of a file of whole lines, by name, in the order of its names; None where another reader must read it.

    Parameters
    ----------
    opened : callable
        Opens the file, or the part of it that is to be read.
    block : int
        Bytes that are read at once.

    Returns
    -------
    dict or None
        pyarrow's chunked arrays of int64, float64 (nulls are nulls), string or bool (without nulls), and numpy's object
        arrays of None for columns that are null in every row.
    """
    import pyarrow as pa
    from pyarrow import csv

    try:
        with opened() as source:
            first = json.loads((source.read(LONGEST) or b"").partition(b"\n")[0])
        if not first or not isinstance(first, dict):
            return None
        keys = {name: json.dumps(name, ensure_ascii=False) + ":" for name in first}
        keys[next(iter(keys))] = "{" + keys[next(iter(keys))]
        found: dict[str, list[Any]] = {name: [] for name in first}
        rows = 0
        with opened() as source:
            reader = csv.open_csv(
                source,
                csv.ReadOptions(block_size=block, column_names=list(first)),
                csv.ParseOptions(quote_char=False, escape_char=False, ignore_empty_lines=False),
                csv.ConvertOptions(
                    column_types=dict.fromkeys(first, pa.binary()), strings_can_be_null=False, check_utf8=False
                ),
            )
            for batch in reader:
                rows += batch.num_rows
                for place, (name, key) in enumerate(keys.items(), 1):
                    part = _without(batch.column(place - 1), key, place == len(keys))
                    found[name].append(_values(part, found[name][-1].type if found[name] else None))
        return {name: _joined(chunks, rows) for name, chunks in found.items()}
    except (pa.ArrowException, ValueError):
        return None


def _without(parts: Any, key: str, last: bool) -> Any:
    """What follows the name ``key`` in each part (N,) of a line. Raises ValueError where it is another name."""
    import pyarrow as pa
    import pyarrow.compute as pc

    if not pc.all(pc.starts_with(parts, key)).as_py():
        raise ValueError("a line has other names")
    parts = pc.binary_replace_slice(parts, 0, len(key.encode()), b"")
    if last:
        if not pc.all(pc.ends_with(parts, "}")).as_py():
            raise ValueError("a line does not end with a brace")
        parts = pc.binary_replace_slice(parts, -1, np.iinfo(np.int64).max, b"")
    return parts.view(pa.string())


def _values(texts: Any, likely: Any) -> Any:
    """Values (N,) from their JSON: int64, float64, string, bool or null; ``likely`` is the type of the batch before.

    Raises ArrowException or ValueError where they are none of these, or not of one of these types alone.
    """
    import pyarrow as pa
    import pyarrow.compute as pc

    if likely is None:  # one value tells, because to try a type costs as much as to have it
        likely = {int: pa.int64(), float: pa.float64()}.get(type(json.loads(texts[0].as_py())))
    if likely in (pa.int64(), pa.float64()):
        for nulls in (False, True):  # in this order, because most columns have none
            known = pc.if_else(pc.equal(texts, "null"), None, texts) if nulls else texts
            try:
                return _numbers(known, likely)
            except pa.ArrowInvalid:
                pass
    coded = texts.dictionary_encode()
    values = [json.loads(value) for value in coded.dictionary.to_pylist()]
    kinds = {type(value) for value in values}
    if kinds <= {str, type(None)} or kinds == {bool}:
        return pa.array(values).take(coded.indices)
    if kinds <= {int, float, type(None)}:
        known = pc.if_else(pc.equal(texts, "null"), None, texts)
        return _numbers(known, pa.float64() if float in kinds else pa.int64())
    raise ValueError("a value of another kind")


def _numbers(texts: Any, kind: Any) -> Any:
    """Numbers (N,) of type ``kind``. Raises ArrowInvalid where they are no such, ValueError for NaN and infinity."""
    import pyarrow as pa
    import pyarrow.compute as pc

    numbers = texts.cast(kind)
    if pa.types.is_floating(kind) and pc.all(pc.is_finite(numbers)).as_py() is False:
        raise ValueError("not a finite number")
    return numbers


def _joined(chunks: list[Any], rows: int) -> Any:
    """One column of those of all batches. Raises ArrowException or ValueError where no one type has all values."""
    import pyarrow as pa

    kinds = {chunk.type for chunk in chunks} - {pa.null()}
    if not kinds:
        return np.full(rows, None, object)
    if len(kinds) > 1 and kinds != {pa.int64(), pa.float64()}:
        raise ValueError("values of several kinds")
    kind = pa.float64() if len(kinds) > 1 else kinds.pop()
    column = pa.chunked_array([chunk.cast(kind) for chunk in chunks], kind)
    if pa.types.is_boolean(kind) and column.null_count:
        raise ValueError("truth values and null")
    return column
