"""Reading a round log: what its files and columns are, and ``load``. No paper.

The tables below are the one list of names: the writer fills them, ``docs/logs.md`` prints them
(tested). A user's own metrics and callbacks may add columns under any name that is not theirs.
"""

import json
import tomllib
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safetensors import SafetensorError
from safetensors.torch import load_file

from fl_sim.logs.columns import COLUMNS, CONFIG, MODEL, SUMMARY, Column
from fl_sim.tree import Tree

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True, repr=False)
class RunLog:
    """One run as it stood when it was read."""

    path: Path
    """The run's folder."""
    rounds: "pd.DataFrame"
    """One row a round, from 0; the columns of ``COLUMNS["rounds"]``, then the user's own."""
    clients: "pd.DataFrame"
    """One row a round, phase and client; the columns of ``COLUMNS["clients"]``, then the user's own."""
    events: "pd.DataFrame"
    """One row an event, in the order of time."""
    config: dict[str, Any]
    """``config.toml``."""
    summary: dict[str, Any]
    """``summary.json``; empty while the run goes on, or if it was killed."""

    def __getitem__(self, name: str) -> Any:
        """``log["rounds"]`` is ``log.rounds``. Raises KeyError that lists the names."""
        names = [f.name for f in fields(self)]
        if name not in names:
            raise KeyError(f"{name!r}: a run log has {', '.join(names)}")
        return getattr(self, name)

    def __repr__(self) -> str:
        return f"RunLog({str(self.path)!r}, {len(self.rounds)} rows of rounds, {self.summary.get('status', 'no summary yet')})"

    def model(self) -> Tree:
        """The last global model that was saved, on the CPU. Raises ValueError where there is none or it is damaged."""
        file = self.path / MODEL
        try:
            return load_file(file)
        except (OSError, SafetensorError) as error:
            raise ValueError(f"{file}: no model can be read ({error})") from error


def load(path: str | Path) -> RunLog:
    """Read a run's folder, also while the run is being written (a last line without an end is left out).

    Raises ValueError that names the folder or the file, for a folder that is missing or not a run's, and for damage.
    """
    folder = Path(path)
    if not (folder / CONFIG).is_file():
        why = "it has no " + CONFIG if folder.is_dir() else "there is no such folder"
        raise ValueError(f"{str(path)!r} is not the folder of a run: {why}")
    try:
        config = tomllib.loads((folder / CONFIG).read_text(encoding="utf-8"))
        summary = json.loads((folder / SUMMARY).read_text(encoding="utf-8")) if (folder / SUMMARY).exists() else {}
    except ValueError as error:
        raise ValueError(f"{str(path)!r}: its config or summary is damaged ({error})") from error
    rounds, clients, events = (
        _frame(folder / f"{table}.jsonl", COLUMNS[table]) for table in ("rounds", "clients", "events")
    )
    return RunLog(folder, rounds, clients, events, config, summary)


def _rows(file: Path) -> list[dict[str, Any]]:
    """The finished lines of a JSON-lines file; none where the file is not there yet."""
    whole, end, _ = file.read_bytes().rpartition(b"\n") if file.exists() else (b"", b"", b"")
    rows = []
    for number, line in enumerate(whole.split(b"\n") if end else [], 1):
        try:
            rows.append(json.loads(line))
        except ValueError as error:
            raise ValueError(f"{file}: line {number} is damaged ({error})") from error
    return rows


def _frame(file: Path, columns: dict[str, Column]) -> "pd.DataFrame":
    """Documented columns first, in their order and always there; a number that is null everywhere is a NaN."""
    import pandas as pd  # here, because a device that trains never reads logs and need not wait for pandas

    frame = pd.DataFrame.from_records(_rows(file))
    own = [name for name in frame.columns if name not in columns]
    frame = frame.reindex(columns=[*columns, *own])
    for name in frame.columns:
        numeric = name not in columns or columns[name].unit not in ("text", "yes/no")
        if frame[name].isna().all() or not len(frame):
            frame[name] = frame[name].astype("float64" if numeric else "object")
    return frame
