"""Reading parquet files of pictures and labels, as the Hugging Face hub has them or pandas writes them.

Legend: N samples; x (N, channels, height, width) uint8 or float32, y (N,) int64.
"""

import io
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from clients.sources.cache import Arrays, Source, with_notes
from clients.sources.dataset_samples import X_NAMES, Y_NAMES
from clients.sources.pictures import one_depth, stack
from fl_sim.learning.samples.labels import targets
from fl_sim.learning.samples.sample_checks import BadSamples


def parquet(folder: Path, mode: str) -> Source | None:
    """``train.parquet`` and ``test.parquet`` in a folder, None if one is missing.

    For ``mode`` and the columns see ``read_parquet``. Labels that are words are numbered in the order of the sorted
    words of ``train.parquet``; those of ``test.parquet`` must be among them.
    """
    files = (folder / "train.parquet", folder / "test.parquet")

    def decode() -> Arrays:
        remarks = list[str]()
        (train_x, train_y), (test_x, test_y) = (read_parquet(file, mode, remarks) for file in files)
        arrays = {"train_x": train_x, "train_y": train_y, "test_x": test_x, "test_y": test_y}
        if train_y.dtype == object or test_y.dtype == object:
            arrays |= _numbered(folder, train_y, test_y)
        return with_notes(one_depth(arrays), remarks)

    return Source(folder, files, decode) if all(file.is_file() for file in files) else None


def _numbered(folder: Path, train_y: np.ndarray, test_y: np.ndarray) -> Arrays:
    if train_y.dtype != test_y.dtype:
        kinds = " and ".join("words" if y.dtype == object else "numbers" for y in (train_y, test_y))
        raise ValueError(f"{folder}: labels of train.parquet and test.parquet are {kinds}; give both the same kind")
    try:
        found = targets(train_y, test_y, outputs=None, own_loss=False, ignored=None)
    except BadSamples as error:
        raise ValueError(f"{folder}: labels (y of train.parquet, y_test of test.parquet): {error}") from error
    assert found.y_test is not None and found.names is not None
    return {"train_y": found.y.numpy(), "test_y": found.y_test.numpy(), "classes": found.names.astype(str)}


def read_parquet(file: Path, mode: str, remarks: list[str] | None = None) -> tuple[np.ndarray, np.ndarray]:
    """(x, y) of one parquet file with a column of pictures and a column of labels.

    Pictures are bytes, or a struct {bytes, path}, in a column img or image or another of ``X_NAMES``; labels are in a
    column label or another of ``Y_NAMES``. Labels are integers, booleans (0 and 1), whole numbers as floats, or words:
    then y is (N,) of type object. Each of Arrow's types for bytes and text is taken, also as a dictionary (a category).

    Parameters
    ----------
    file : Path
        The file.
    mode : str
        PIL's mode: L (grey) or RGB.
    remarks : list of str, optional
        Gets sentences on what was decided about the pictures.

    Raises
    ------
    ValueError
        That names the file, and where it can the row (from 0): if it cannot be read, has no rows or other columns, and
        for damaged pictures, and labels that are missing or beyond int64.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    with _readable(file):
        table = pq.ParquetFile(file)
    columns, n = table.schema_arrow.names, table.metadata.num_rows
    image, label = (_column(file, columns, usual, other) for usual, other in ((X_NAMES, "img"), (Y_NAMES, "label")))
    if not n:
        raise ValueError(f"{file}: has no rows; it must have one row a picture")
    kind = table.schema_arrow.field(image).type
    in_struct = pa.types.is_struct(kind) and kind.get_field_index("bytes") >= 0
    if not _is_bytes(kind.field("bytes").type if in_struct else kind):
        raise ValueError(f"{file}: column {image} is {kind}; it must be {{bytes, path}}, or bytes of picture files")

    def encoded() -> Iterable[tuple[str, io.BytesIO]]:
        row = 0
        for batch in table.iter_batches(1000, columns=[image]):
            for value in batch.column(0).to_pylist():
                data = value["bytes"] if in_struct and value is not None else value
                if not data:
                    raise ValueError(
                        f"{file} row {row}: has no bytes in column {image}; embed the picture's file in it"
                    )
                yield f"{file} row {row}", io.BytesIO(data)
                row += 1

    with _readable(file):
        y = _labels(file, label, table.read([label]).column(0))
        return stack(encoded(), n, mode, remarks=remarks), y


@contextmanager
def _readable(file: Path) -> Iterator[None]:
    """Context manager: pyarrow's errors, which do not name the file, become ValueErrors that do."""
    import pyarrow as pa

    try:
        yield
    except (pa.ArrowException, OSError) as error:
        raise ValueError(f"{file}: cannot be read as parquet ({error}); write it again") from error


def _is_bytes(kind: Any) -> bool:
    """Whether values of a type of pyarrow's are bytes, stored in any of its ways, or all missing."""
    import pyarrow as pa

    kind, kinds = kind.value_type if pa.types.is_dictionary(kind) else kind, pa.types
    ways = (kinds.is_binary, kinds.is_large_binary, kinds.is_binary_view, kinds.is_fixed_size_binary, kinds.is_null)
    return any(way(kind) for way in ways)


def _column(file: Path, columns: Sequence[str], usual: Sequence[str], first: str) -> str:
    """The only column with a usual name; ``first`` is the name to take where there are several."""
    found = [name for name in columns if name in usual]
    if twice := next((name for name in found if columns.count(name) > 1), None):
        what = f"{columns.count(twice)} columns are named {twice}"
        raise ValueError(f"{file}: {what}; rename or drop all but the one that is meant")
    if first in found or len(found) == 1:
        return first if first in found else found[0]
    has = f"{file}: has the columns {', '.join(columns)}"
    if found:
        raise ValueError(f"{has}; {' and '.join(found)} could both be meant: rename one to {first}")
    raise ValueError(f"{has}; it needs img or image (pictures), and label")


def _labels(file: Path, name: str, column: Any) -> np.ndarray:
    """(N,) int64, or object where labels are words. ``column`` is pyarrow's."""
    import pyarrow as pa
    import pyarrow.compute as pc

    if column.null_count:
        row = pc.index(pc.is_null(column), True).as_py()
        raise ValueError(f"{file}: {column.null_count} labels are missing, the first in row {row}; drop these rows")
    kind = column.type
    if pa.types.is_dictionary(kind):
        return _labels(file, name, column.cast(kind.value_type))
    if pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind):
        return np.array(column.to_pylist(), dtype=object)
    if not (pa.types.is_integer(kind) or pa.types.is_boolean(kind) or pa.types.is_floating(kind)):
        raise ValueError(f"{file}: column {name} is {kind}; labels must be integers, words, or whole numbers as floats")
    values = np.asarray(column.to_numpy())
    if values.dtype.kind == "f":
        values = values.astype(np.float64)
        if len(bad := np.flatnonzero(~(np.isfinite(values) & (values == np.rint(values))))):
            what = f"label {values[bad[0]]} in row {bad[0]} is no whole number"
            raise ValueError(f"{file}: {what}; labels must be classes: integers or words")
    beyond = values >= np.uint64(2**63) if values.dtype == np.uint64 else abs(values) >= 2.0**63
    if values.dtype.kind in "fu" and len(bad := np.flatnonzero(beyond)):
        what = f"label {values[bad[0]]} in row {bad[0]} does not fit into 64 bits with a sign"
        raise ValueError(f"{file}: {what}; number the classes from 0, or write them as words")
    return values.astype(np.int64)
