"""Reading traces of devices: CSV or Parquet files with columns of numbers, checked, with the row named.

Legend: n rows.
"""

import csv
import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Trace:
    """The columns of a trace."""

    file: Path
    columns: dict[str, np.ndarray]
    """By name: (n,) int64 of ``client``, (n,) float64 of all others; no number is missing or NaN."""
    digest: str
    """SHA-256 of the file."""

    def row(self, i: int) -> str:
        """A row as users find it in the file: a line of CSV (the header is line 1), a row of Parquet (from 0)."""
        return f"{self.file} row {i}" if is_parquet(self.file) else f"{self.file} line {i + 2}"

    def refuse(self, bad: np.ndarray, name: str, why: str) -> None:
        """Raise ValueError that names the first row of ``bad`` (n,) bool, and its value of the column ``name``."""
        if bad.any():
            i = int(np.argmax(bad))
            raise ValueError(f"{self.row(i)}: {name} = {self.columns[name][i]:g}: {why}")


def read_trace(key: str, path: str, needed: Sequence[str], further: Sequence[str] = ()) -> Trace:
    """Read a trace with the columns ``needed``, and any of ``further``.

    Parameters
    ----------
    key : str
        The setting that names the file, for errors.
    path : str
        A file NAME.parquet, or CSV with a header under any other name.

    Raises
    ------
    ValueError
        That names the file, and where it can the row: if it cannot be read, has no rows, other columns, or a column
        twice, and for what is missing, NaN, or no number (a client: no whole number from 0 on).
    """
    file = Path(path).expanduser()
    if not path or not file.is_file():
        what = f"a CSV or Parquet file with the columns {', '.join((*needed, *further))}"
        raise ValueError(f"{key} = {path!r}: no such file; give {what}")
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    table = _parquet(file) if is_parquet(file) else _csv(file)
    names = list(table.column_names)
    if unknown := next((name for name in names if name not in (*needed, *further)), None):
        raise ValueError(f"{file}: column {unknown!r} is unknown; a trace has {', '.join((*needed, *further))}")
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise ValueError(f"{file}: {names.count(twice)} columns are named {twice!r}; keep one")
    if lacking := next((name for name in needed if name not in names), None):
        raise ValueError(f"{file}: has no column {lacking!r}; it has {', '.join(names)}")
    if not table.num_rows:
        raise ValueError(f"{file}: has no rows")
    trace = Trace(file, {}, digest)
    for name in names:
        trace.columns[name] = _numbers(trace, name, table.column(name))
    trace.refuse(trace.columns["client"] < 0, "client", "clients are numbered from 0 on")
    return trace


def is_parquet(file: Path) -> bool:
    """Whether a trace is read as Parquet."""
    return file.suffix.lower() in (".parquet", ".pq")


def _numbers(trace: Trace, name: str, column: Any) -> np.ndarray:
    """A column of pyarrow's as (n,) int64 (clients) or float64."""
    import pyarrow as pa
    import pyarrow.compute as pc

    if column.null_count:
        i = pc.index(pc.is_null(column), True).as_py()
        raise ValueError(f"{trace.row(i)}: {name} is missing or NaN; give a number, or leave the row out")
    whole = pa.types.is_integer(column.type)
    if not whole and (name == "client" or not pa.types.is_floating(column.type)):
        what = "whole numbers" if name == "client" else "numbers"
        raise ValueError(f"{trace.file}: column {name} is {column.type}; it must be {what}")
    kind = pa.int64() if name == "client" else pa.float64()
    try:
        values = np.asarray(column.cast(kind, safe=name == "client").to_numpy())
    except pa.ArrowInvalid as error:
        raise ValueError(f"{trace.file}: column {name}: {error}") from error
    if (bad := np.isnan(values)).any():
        raise ValueError(f"{trace.row(int(np.argmax(bad)))}: {name} is missing or NaN; give a number")
    return values


def _parquet(file: Path) -> Any:
    """The table in a Parquet file. Raises ValueError where it cannot be read."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        return pq.ParquetFile(file).read()
    except (pa.ArrowException, OSError) as error:
        raise ValueError(f"{file}: cannot be read as Parquet ({error}); write it again, or name a CSV *.csv") from error


def _csv(file: Path) -> Any:
    """The table in a CSV file. Raises ValueError that names the line where it cannot be read."""
    import pyarrow as pa
    from pyarrow import csv as arrow_csv

    kinds: dict[str, Any] = {name: pa.float64() for name in ("speed", "down", "up", "start", "end")}
    convert = arrow_csv.ConvertOptions(column_types={"client": pa.int64(), **kinds})
    try:
        return arrow_csv.read_csv(
            file, parse_options=arrow_csv.ParseOptions(ignore_empty_lines=False), convert_options=convert
        )
    except (pa.ArrowException, OSError) as error:
        raise ValueError(_wrong_line(file) or f"{file}: cannot be read as CSV ({error})") from error


def _wrong_line(file: Path) -> str:
    """What is wrong with the first line of a CSV file that cannot be read; empty where none is found."""
    try:
        with file.open(newline="", encoding="utf-8-sig") as lines:
            rows = csv.reader(lines)
            names = next(rows, [])
            for row in rows:
                if len(row) != len(names):
                    return f"{file} line {rows.line_num}: has {len(row)} values; the header has {len(names)} columns"
                for name, text in zip(names, row, strict=True):
                    if not _is_number(text, int if name == "client" else float):
                        what = "whole number" if name == "client" else "number"
                        return f"{file} line {rows.line_num}: {name} = {text!r}: is no {what}"
    except (UnicodeDecodeError, csv.Error, OSError) as error:
        return f"{file}: cannot be read as CSV ({error}); write it as text in UTF-8"
    return f"{file}: is empty; it must have a header" if not names else ""


def _is_number(text: str, kind: Callable[[str], float]) -> bool:
    try:
        return not text.strip() or kind(text) is not None
    except ValueError:
        return False
