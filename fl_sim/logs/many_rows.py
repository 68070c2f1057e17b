"""A JSON-lines file of many rows as a frame: read by pyarrow, with the columns that the plain reader gives.

Where all lines have the same names, ``alike_rows`` reads them. Else pyarrow's reader of JSON does, in two seconds for a
million rows, where Python's objects would take half a minute and 2 GB. What it does not tell is looked up in the file:
whether a null was written or the name is missing, lists as Python reads them, and the order of names. Where that fails,
or the file is damaged, the answer is None, and the plain reader is to read it.

Legend: N rows.
"""

import io
import json
import re
from collections.abc import Callable, Collection, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from fl_sim.logs import alike_rows

if TYPE_CHECKING:
    import pandas as pd

BLOCK = 1 << 20
"""Bytes that are read at once."""
EXACT = 2.0**53
"""From here on floats are no longer exact whole numbers: Python keeps such numbers as integers of any size."""


def frame_of(file: Path, end: int) -> "pd.DataFrame | None":
    """The rows in the first ``end`` bytes, whole lines, of a file, or None where the plain reader must read them.

    The frame is that of ``pandas.DataFrame.from_records`` of the lines' dicts.
    """
    import pandas as pd
    import pyarrow as pa

    alike = alike_rows.columns_of(lambda: _Part(file, end), BLOCK) if alike_rows.likely(file, end) else None
    if alike is not None:
        return _frame_of_alike(alike)
    found: dict[str, Any] = {}
    unclear: dict[str, Any] = {}
    try:
        table = _parsed(file, end)
        rows, names = table.num_rows, table.column_names
        while table.num_columns:  # one column after another, so that its memory is free again
            name, column, table = table.column_names[0], table.column(0), table.remove_column(0)
            if _inexact(column):
                return None
            found[name] = _array(column)
            if found[name] is None:
                unclear[name] = column
        nothing = {name: np.asarray(column.is_null()) for name, column in unclear.items()}
        nested = [name for name, column in unclear.items() if pa.types.is_nested(column.type)]
        told, order = _lookup(file, end, rows, names, nothing, nested)
    except (pa.ArrowException, ValueError):  # a damaged line: the plain reader names it
        return None
    for name, values in told.items():
        if name not in nested:
            known = ~nothing[name]
            values[known] = unclear[name].to_numpy()[known]
        found[name] = pd.Series(values, dtype=object).infer_objects()
    return pd.DataFrame({name: found[name] for name in order}, copy=False)


def _frame_of_alike(columns: dict[str, Any]) -> "pd.DataFrame | None":
    """The columns of ``alike_rows`` as a frame, or None as in ``frame_of``. Empties the dict, to free memory."""
    import pandas as pd

    found: dict[str, Any] = {}
    for name in list(columns):
        column = columns.pop(name)
        if isinstance(column, np.ndarray):
            found[name] = column
            continue
        if _inexact(column):
            return None
        found[name] = _array(column)
        if found[name] is None:  # texts beside nulls, where pandas has no type of its own for texts
            found[name] = pd.Series(column.to_numpy(), dtype=object)
    return pd.DataFrame(found, copy=False)


def _parsed(file: Path, end: int) -> Any:
    """The file as a table. Raises ArrowException where pyarrow cannot read it.

    The types of the first rows are tried first: pyarrow needs half the memory where it knows the types.
    """
    import pyarrow as pa

    head = next(_blocks(file, end))
    first = _table(lambda: io.BytesIO(head), {}).schema
    likely = {
        kind.name: kind.type for kind in first if not (pa.types.is_null(kind.type) or pa.types.is_nested(kind.type))
    }
    try:
        table = _table(lambda: _Part(file, end), likely)
    except pa.ArrowInvalid:
        table = _table(lambda: _Part(file, end), {})
    table.validate(full=True)
    return table


def _table(opened: Callable[[], io.IOBase], kinds: Mapping[str, Any]) -> Any:
    """Rows as a table, with the types ``kinds`` by name, and those that pyarrow finds for others."""
    import pyarrow as pa
    from pyarrow import json as arrow_json

    while True:
        with opened() as source:
            table = arrow_json.read_json(
                source,
                read_options=arrow_json.ReadOptions(block_size=BLOCK),
                parse_options=arrow_json.ParseOptions(explicit_schema=pa.schema(dict(kinds))),
            )
        times = {field.name: pa.string() for field in table.schema if pa.types.is_temporal(field.type)}
        if not times:
            return table
        kinds = {**kinds, **times}  # text that looks like a time is text


def _inexact(column: Any) -> bool:
    """Whether a column of floats may hold what Python reads as a whole number of another value, or as infinity."""
    import pyarrow as pa
    import pyarrow.compute as pc

    if not pa.types.is_floating(column.type) or column.null_count == len(column):
        return False
    bounds = pc.min_max(column).as_py()
    return not -EXACT < bounds["min"] <= bounds["max"] < EXACT


def _array(column: Any) -> Any:
    """A column's values as pandas keeps them; None where it matters how a null was written, and for lists."""
    import pandas as pd
    import pyarrow as pa

    kind = column.type
    if pa.types.is_integer(kind) or pa.types.is_floating(kind) or (pa.types.is_boolean(kind) and not column.null_count):
        return column.to_numpy()
    if not pa.types.is_string(kind):
        return None
    rows: list[dict[str, object]] = [{"": "text"}, {"": None}]
    text = pd.DataFrame.from_records(rows)[""].dtype  # of older pandas: object
    if isinstance(text, pd.api.extensions.ExtensionDtype):
        return text.__from_arrow__(column)  # type: ignore[attr-defined]
    return None if column.null_count else np.asarray(column, dtype=object)


def _lookup(
    file: Path, end: int, rows: int, names: Collection[str], nothing: Mapping[str, np.ndarray], nested: Collection[str]
) -> tuple[dict[str, np.ndarray], list[str]]:
    """Look into the lines themselves. Raises ValueError where they are not written as ``RoundLog`` writes them.

    Parameters
    ----------
    rows, names : int, collection of str
        How many rows there must be, one a line, and what the columns are called.
    nothing : mapping of bool arrays (N,)
        Of some columns, where pyarrow has no value.
    nested : collection of str
        Those of them that hold lists or dicts.

    Returns
    -------
    tuple of (dict of object arrays (N,), list of str)
        The columns of ``nothing``: None for a null that was written, NaN where the name is missing; of ``nested`` ones
        also their values. And all names in the order in which they occur.
    """
    keys = {name: json.dumps(name, ensure_ascii=False).encode() + b":" for name in names}
    lines, named, nulls = 0, dict.fromkeys(nothing, 0), dict.fromkeys(nothing, 0)
    empty = {name: bool(none.all()) for name, none in nothing.items()}
    order: dict[str, None] = {}
    for block in _blocks(file, end):
        for name in [name for name in names if name not in order and keys[name] in block]:
            line = block[block.rfind(b"\n", 0, block.find(keys[name])) + 1 :].partition(b"\n")[0]
            order |= dict.fromkeys(json.loads(line))
        lines += block.count(b"\n")
        for name, none in empty.items():
            times = block.count(keys[name])
            named[name] += times
            nulls[name] += times if none else block.count(keys[name] + b"null")
    if lines != rows or set(order) != set(names):
        raise ValueError("a line is no row, or a name is written in another way")
    if any(named[name] - nulls[name] != rows - nothing[name].sum() for name in nothing):
        raise ValueError("a null or a name is written in another way")
    found = {name: np.full(rows, None if nulls[name] else np.nan, object) for name in nothing}
    mixed = {name: keys[name] for name in nothing if 0 < nulls[name] < nothing[name].sum()}
    if mixed or nested:
        _look_closer(file, end, found, nothing, mixed, nested)
    return found, list(order)


def _look_closer(
    file: Path,
    end: int,
    found: Mapping[str, np.ndarray],
    nothing: Mapping[str, np.ndarray],
    mixed: Mapping[str, bytes],
    nested: Collection[str],
) -> None:
    """Write NaN into the rows of ``mixed`` columns that lack the name, and into those of ``nested`` their values."""
    first = 0
    for block in _blocks(file, end):
        ends = np.flatnonzero(np.frombuffer(block, np.uint8) == ord("\n"))
        own = slice(first, first + len(ends))
        for name, key in mixed.items():
            nulls = [match.start() for match in re.finditer(re.escape(key) + b"null", block)]
            missing = nothing[name][own].copy()
            missing[np.searchsorted(ends, nulls)] = False
            found[name][own][missing] = np.nan
        filled = [np.flatnonzero(~nothing[name][own]) for name in nested]
        for row in np.unique(np.concatenate(filled)).tolist() if filled else ():
            values = json.loads(block[ends[row - 1] + 1 if row else 0 : ends[row]])
            for name in nested:
                if not nothing[name][first + row]:
                    found[name][first + row] = values[name]
        first += len(ends)


def _blocks(file: Path, end: int) -> Iterator[bytes]:
    """The first ``end`` bytes of a file, whole lines at a time."""
    with file.open("rb") as opened:
        rest = b""
        while end > 0 and (read := opened.read(min(BLOCK, end))):
            end -= len(read)
            whole, newline, rest = (rest + read).rpartition(b"\n")
            yield whole + newline


class _Part(io.RawIOBase):
    """The first ``end`` bytes of a file."""

    def __init__(self, file: Path, end: int) -> None:
        self._file, self._left = file.open("rb"), end

    def readable(self) -> bool:
        """A file to read."""
        return True

    def readinto(self, buffer: Any) -> int:
        """Fill ``buffer`` as far as there are bytes."""
        count = self._file.readinto(memoryview(buffer)[: self._left])
        self._left -= count
        return count

    def close(self) -> None:
        """Close the file."""
        self._file.close()
        super().close()
