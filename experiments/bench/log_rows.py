"""``python -m experiments.bench.log_rows [--rows 1000000]``: how long a log of many client rows takes to load.

A run folder with that many rows of clients.jsonl is written by ``RoundLog``, in a temporary folder. Then
``fl_sim.load`` reads it, each time in a process of its own: with pyarrow, as it reads files above 1 MiB, and in turn,
with ``--plain``, with Python's own reader. Shown are wall time, processor time of all threads, and the peak of
resident memory above what the imports take. The mark: a million rows in less than 2 s and 500 MB.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from experiments.command_ends import ended
from fl_sim import RoundLog, load, rng
from fl_sim.logs import reader

PER_ROUND = 1000
"""Rows of one round."""
READERS = {"pyarrow": reader.MANY, "plain": sys.maxsize}
"""Name -> bytes of a file from which on pyarrow reads it."""


def rows_of(server_round: int, count: int) -> Iterator[dict[str, object]]:
    """Rows of ``count`` clients that trained in one round, with all columns that training fills."""
    words = rng.permutation(rng.key(0, "rows", server_round), count)
    for place, client in enumerate(words.tolist()):
        share = (client + 1) / count
        yield {
            **{"round": server_round, "client": client, "phase": "train", "status": "completed", "reason": None},
            **{"examples": 20 + client % 580, "steps": 1 + client % 60, "loss": 3 * share**0.5},
            **{"update_norm": share**0.3, "block": place // 16, "weight": float(20 + client % 580)},
        }


def write(out: Path, rows: int) -> Path:
    """A run folder with ``rows`` rows of clients; its path."""
    with RoundLog.create(out, "rows", "seed = 0\n") as log:
        for number, first in enumerate(range(0, rows, PER_ROUND), 1):
            log.round({"round": number, "digest": None})
            log.clients(rows_of(number, min(PER_ROUND, rows - first)))
    return log.path


def resident(name: str) -> float | None:
    """MB of this process: ``VmRSS`` now, ``VmHWM`` at its peak since it started; None where the system has no /proc."""
    status = Path("/proc/self/status")
    if not status.is_file():
        return None
    [line] = [line for line in status.read_text().splitlines() if line.startswith(f"{name}:")]
    return int(line.split()[1]) * 1024 / 1e6


def measured(folder: Path, kind: str) -> dict[str, Any]:
    """One load of a run folder in this process: rows, seconds, processor seconds, MB above the imports."""
    import pandas as pd
    import pyarrow.json  # noqa: F401

    pd.DataFrame({"a": [1.0]}).isna().all()
    reader.MANY = READERS[kind]
    before, wall, processor = resident("VmRSS"), time.perf_counter(), time.process_time()
    log = load(folder)
    times = {"s": time.perf_counter() - wall, "cpu_s": time.process_time() - processor}
    peak = resident("VmHWM")
    return {"rows": len(log.clients), **times, "mb": None if peak is None or before is None else peak - before}


def in_turn(folder: Path, kinds: Sequence[str], turns: int) -> dict[str, list[dict[str, Any]]]:
    """What each reader took, in turn, each time in a process of its own."""
    found: dict[str, list[dict[str, Any]]] = {kind: [] for kind in kinds}
    for _ in range(turns):
        for kind in kinds:
            command = [sys.executable, "-m", "experiments.bench.log_rows", "--measure", str(folder), kind]
            done = subprocess.run(command, capture_output=True, text=True, check=True)
            found[kind].append(json.loads(done.stdout.splitlines()[-1]))
    return found


def table(found: dict[str, list[dict[str, Any]]], megabytes: float) -> list[str]:
    """A Markdown table: medians, smallest and largest."""
    lines = ["| reader | rows | MB of the file | s | CPU s | MB of memory |", "|---|---|---|---|---|---|"]
    for kind, several in found.items():
        cells = []
        for name, digits in (("s", 2), ("cpu_s", 2), ("mb", 0)):
            values = [row[name] for row in several if row[name] is not None]
            low, high = (f"{end(values):.{digits}f}" if values else "" for end in (min, max))
            cells.append(f"{statistics.median(values):.{digits}f} ({low}-{high})" if values else "unknown")
        lines.append(f"| {kind} | {several[0]['rows']} | {megabytes:.0f} | {' | '.join(cells)} |")
    return lines


def main(argv: Sequence[str] | None = None) -> int:
    """The command. Returns the exit code."""
    parser = argparse.ArgumentParser("python -m experiments.bench.log_rows", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--rows", type=int, default=1_000_000, help="rows of clients.jsonl (default: 1000000)")
    parser.add_argument("--turns", type=int, default=3, help="how often each reader reads, in turn (default: 3)")
    parser.add_argument(
        "--plain", action="store_true", help="Python's own reader too, which takes several times as long"
    )
    parser.add_argument("--measure", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args(argv)
    if options.measure:
        print(json.dumps(measured(Path(options.measure[0]), options.measure[1])))
        return 0
    with tempfile.TemporaryDirectory() as out:
        folder = write(Path(out), options.rows)
        megabytes = (folder / "clients.jsonl").stat().st_size / 1e6
        found = in_turn(folder, ["pyarrow", "plain"] if options.plain else ["pyarrow"], options.turns)
    print("\n".join(table(found, megabytes)))
    return 0


if __name__ == "__main__":
    sys.exit(ended(main))
