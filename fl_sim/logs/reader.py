"""Reading a round log: ``load`` and the ``RunLog`` that it returns.

Names and units of columns: ``fl_sim.logs.columns``.
"""

import json
import os
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from fl_sim.logs import checksums, many_rows, model_file
from fl_sim.logs.columns import A_RUN, COLUMNS, CONFIG, MODEL, NAMES, SUMMARY
from fl_sim.logs.kept import best_models, partition_file
from fl_sim.logs.round_columns import Column
from fl_sim.logs.toml import read_toml
from fl_sim.tree import Tree

if TYPE_CHECKING:
    import pandas as pd


MANY = 1 << 20
"""Bytes of a file from which on pyarrow reads it, where it can."""


@dataclass(frozen=True, repr=False)
class RunLog:
    """The log of one run, as it was when it was read."""

    path: Path
    """The run's folder."""
    rounds: "pd.DataFrame"
    """One row per round, from round 0; the columns of ``COLUMNS["rounds"]``, then the user's own."""
    clients: "pd.DataFrame"
    """One row per round, phase and client; the columns of ``COLUMNS["clients"]``, then the user's own."""
    events: "pd.DataFrame"
    """One row per event, in order of time."""
    config: dict[str, Any]
    """Content of ``config.toml``."""
    summary: dict[str, Any]
    """Content of ``summary.json``; empty while the run goes on, or if it was killed."""
    names: dict[str, Any] = field(default_factory=dict)
    """Content of ``names.json``: the user's names of ``classes`` 0..K-1 and ``clients``; empty without such names."""

    def __getattr__(self, name: str) -> Any:
        """``clients`` of a log that ``read_back`` returned: read when they are first asked for."""
        if name != "clients" or "_clients_end" not in vars(self):
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")
        vars(self)["clients"] = _clients(self.path, self.names, vars(self)["_clients_end"])
        return vars(self)["clients"]

    def __getitem__(self, name: str) -> object:
        """``log["rounds"]`` is ``log.rounds``. Raises KeyError that lists the valid names."""
        names = [f.name for f in fields(self)]
        if name not in names:
            raise KeyError(f"{name!r}: a run log has {', '.join(names)}")
        return getattr(self, name)

    def __repr__(self) -> str:
        status = self.summary.get("status", "no summary yet")
        return f"RunLog({str(self.path)!r}, {len(self.rounds)} rows of rounds, {status})"

    @property
    def schema(self) -> int:
        """Version of the columns, ``SCHEMA`` of ``fl_sim.logs.columns`` when the run began; 1 where it says none."""
        found = self.events["schema"].dropna().tolist() if "schema" in self.events else []
        return int(found[0]) if found else 1

    @property
    def partition(self) -> "pd.DataFrame":
        """How many samples of each label each client owns, held-out ones included: a row a client, a column a label.

        At most 10 000 clients, a keyed choice; one column ``samples`` where there are no labels. Raises ValueError
        where the run's folder has no ``partition.json``.
        """
        return partition_file.read(self.path, self.names.get("classes", ()))

    def best(self) -> Tree:
        """The model that is best by the central validation samples, of a run with ``keep_best``; else as ``model()``.

        Its round, and its numbers on the test set, are the summary's ``best_round``, ``best_accuracy``, ``best_loss``.
        Raises ValueError where the run kept none.
        """
        row = best_models.best_row([{str(k): v for k, v in row.items()} for row in self.rounds.to_dict("records")])
        if row is None or not (file := best_models.place(self.path, int(row["round"]))).is_file():
            raise ValueError(f"{self.path}: kept no best model; run with --keep_best and --validation 0.1")
        return model_file.read(file, self._digests)

    def model(self) -> Tree:
        """The last global model that was saved, on the CPU: the ``state_dict`` of the network that was trained.

        A tensor that the network has under several names (tied weights) has each of them. Raises ValueError if there
        is no model, or if its digest is not the one that was recorded.
        """
        return model_file.read(self.path / MODEL, self._digests)

    @property
    def _digests(self) -> dict[int, str]:
        digests = self.rounds[["round", "digest"]].dropna()
        return {int(number): str(text) for number, text in digests.itertuples(index=False)}


def load(path: str | Path) -> RunLog:
    """Read a run's folder, also while the run goes on (then an incomplete last line of a file is ignored).

    Raises ValueError that names the folder or the file if there is no such folder, if it does not hold a run, or if a
    file is damaged. The files of a run that has ended have checksums; for a config that was edited there is a warning.
    """
    log = read_back(path)
    _ = log.clients
    return log


def read_back(path: str | Path, checked: bool = True) -> RunLog:
    """``load``, but the rows of clients, which may be millions, are read only when ``clients`` is first asked for.

    They are then those that were written when this function was called: the file must still be there. ``checked``:
    whether checksums are compared, for which all files are read.
    """
    folder = Path(path)
    if not (folder / CONFIG).is_file():
        absent = "it is a file" if folder.exists() else "there is no such folder"
        why = f"it has no {CONFIG}" if folder.is_dir() else absent
        raise ValueError(f"{str(path)!r} is not the folder of a run: {why}; {A_RUN}")
    try:
        config = read_toml(folder / CONFIG)
        summary, names = (
            json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}
            for file in (folder / SUMMARY, folder / NAMES)
        )
    except ValueError as error:
        raise ValueError(f"{str(path)!r}: its config, summary or names are damaged ({error})") from error
    if checked:
        check(folder)
    rounds, events = (_frame(folder / f"{table}.jsonl", COLUMNS[table]) for table in ("rounds", "events"))
    log = RunLog.__new__(RunLog)
    vars(log).update(path=folder, rounds=rounds, events=events, config=config, summary=summary, names=names)
    vars(log)["_clients_end"] = _end(folder / "clients.jsonl")
    return log


def check(folder: Path) -> None:
    """Raise ValueError where a text file of a run that has ended is not as it was; warn where it is the config."""
    changed = checksums.changed(folder)
    if CONFIG in changed:
        warnings.warn(f"{folder / CONFIG}: is not as the run wrote it; it was edited or damaged", stacklevel=3)
    damaged = ", ".join(name for name in changed if name != CONFIG)
    if damaged:
        cure = f"delete {checksums.CHECKSUMS} in it to read it nevertheless"
        raise ValueError(f"{str(folder)!r}: {damaged}: damaged or changed after the run had ended; {cure}")


def _end(file: Path) -> int:
    """Where the complete lines of a file end, in bytes; 0 if it does not exist yet."""
    if not file.exists():
        return 0
    with file.open("rb") as opened:
        end = opened.seek(0, os.SEEK_END)
        while end > 0:
            start = max(end - many_rows.BLOCK, 0)
            opened.seek(start)
            newline = opened.read(end - start).rfind(b"\n")
            if newline >= 0:
                return start + newline + 1
            end = start
    return 0


def _rows(file: Path, end: int) -> list[dict[str, object]]:
    """The lines in the first ``end`` bytes of a JSON-lines file. Raises ValueError where it was cut since."""
    try:
        whole = file.read_bytes()[:end]
    except FileNotFoundError:
        whole = b""
    if len(whole) < end:
        raise ValueError(f"{file}: was deleted or cut since the log was read")
    lines = whole.split(b"\n")[:-1]
    rows = []
    for number, line in enumerate(lines, 1):
        try:
            rows.append(json.loads(line))
        except ValueError as error:
            raise ValueError(f"{file}: line {number} is damaged ({error})") from error
    return rows


def not_finite(folder: Path) -> str | None:
    """The columns that events of a run's evaluations name as NaN or infinite, such as ``loss, val_loss``; or None."""
    columns: dict[str, None] = {}
    for line in (folder / "events.jsonl").read_bytes().splitlines():
        if b'"not_finite"' in line:  # millions of other events are not parsed
            row = json.loads(line)
            columns |= dict.fromkeys(row["columns"] if row["event"] == "not_finite" else ())
    return ", ".join(columns) or None


def _clients(folder: Path, names: Mapping[str, Any], end: int | None = None) -> "pd.DataFrame":
    """The rows of clients in the first ``end`` bytes of their file (default: in all lines), with the user's names."""
    clients = _frame(folder / "clients.jsonl", COLUMNS["clients"], end)
    if known := {c: name for c, name in enumerate(names.get("clients", ())) if not isinstance(name, list)}:
        clients["client_name"] = clients["client"].map(known)
    return clients


def _frame(file: Path, columns: dict[str, Column], end: int | None = None) -> "pd.DataFrame":
    """A file's rows as a frame: all documented columns in their order, then the others.

    A column of numbers that is null in every row becomes NaN of type float64.
    """
    import pandas as pd  # Imported here so that a device that trains, and never reads logs, does not load pandas.

    end = _end(file) if end is None else end
    frame = many_rows.frame_of(file, end) if end >= MANY and file.exists() else None
    if frame is None:
        frame = pd.DataFrame.from_records(_rows(file, end) if end else [])
    own = [name for name in frame.columns if name not in columns]
    found: dict[str, Any] = {}
    for name in (*columns, *own):
        numeric = name not in columns or columns[name].unit not in ("text", "yes/no")
        column: Any = frame.get(name)
        # one value first: to look at a million takes a while
        if column is None or (column.iloc[:1].isna().all() and column.isna().all()):
            column = np.full(len(frame), np.nan, "float64" if numeric else "object")
        found[name] = column
    return pd.DataFrame(found, index=frame.index, copy=False)
