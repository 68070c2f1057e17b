"""Time Flower apps on Flower's own simulation and on this project, in turn: apps.json and apps.md in ``--out``.

LIST is a text file with one app a line: its folder, its number of clients, and pairs of its config to override
(``FOLDER 4 num-server-rounds=2``). Seconds are those of whole processes, imports and the start of Ray included: what a
user waits for. A turn is ours, stock, ours. Exit codes: 0; 1 if ours failed where stock did not.
"""

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

from experiments import provenance
from experiments.apps.project import Project
from experiments.apps.run_config import read_run_config
from experiments.bench import ROOT
from experiments.bench.tables.markdown import aligned, number, ratio
from experiments.installation import child_environment

Row = dict[str, Any]
RAY_FAILED = "The current node timed out during startup"
"""What Ray says where the machine is too busy to start it within the 30 s that it allows; such a try is repeated."""


class Listed(NamedTuple):
    """One line of the list."""

    folder: Path
    clients: int
    changes: str

    @property
    def config(self) -> dict[str, Any]:
        """The app's whole config."""
        own = Project.read(str(self.folder)).run_config
        return {**own, **(read_run_config(self.changes, own) if self.changes else {})}


class Ended(NamedTuple):
    """A process that has ended."""

    seconds: float
    code: int
    out: list[str]
    errors: str


def read_list(file: Path) -> list[Listed]:
    """The apps of a list. Raises ValueError for a line that has no folder and number."""
    apps = []
    for line in file.read_text(encoding="utf-8").splitlines():
        if line.strip() and not line.startswith("#"):
            folder, clients, changes = [*line.split(None, 2), "", ""][:3]
            if not clients.isdigit():
                raise ValueError(f"{file}: {line!r}: give FOLDER CLIENTS [KEY=VALUE ...]")
            apps.append(Listed(Path(folder).absolute(), int(clients), changes))
    return apps


def timed(words: Sequence[str], folder: str, limit: float, **env: str) -> Ended:
    """Run ``python -m WORDS`` in ``folder``; a process that takes longer than ``limit`` seconds is ended (code -9)."""
    start = time.perf_counter()
    process = subprocess.Popen(
        [sys.executable, "-m", *words], cwd=folder, env={**os.environ, **child_environment(), **env},
        start_new_session=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, errors="replace",
    )  # fmt: skip
    try:
        out, errors = process.communicate(timeout=limit)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        out, errors = process.communicate()
    return Ended(time.perf_counter() - start, process.returncode, out.splitlines(), errors)


def stock(app: Listed, limit: float) -> Ended:
    """The app on Flower's own simulation, whose clients import it from its folder."""
    path = os.pathsep.join(p for p in (str(ROOT), str(app.folder), os.environ.get("PYTHONPATH", "")) if p)
    quiet = {"FLWR_TELEMETRY_ENABLED": "0", "RAY_USAGE_STATS_ENABLED": "0", "PYTHONPATH": path}
    quiet["RAY_worker_niceness"] = "0"  # Ray's default, 15, is starved beside other work
    words = ["experiments.bench.apps.stock_app", str(app.folder), str(app.clients), json.dumps(app.config)]
    for _ in range(3):
        with tempfile.TemporaryDirectory() as folder:
            ended = timed(words, folder, limit, **quiet)
        if RAY_FAILED not in ended.errors:
            break
    return ended


def ours(app: Listed, limit: float, hashes: int) -> Ended:
    """The app on this project; ``hashes`` seeds the hashes of Python's text, by which sets are ordered."""
    path = os.pathsep.join(p for p in (str(ROOT), os.environ.get("PYTHONPATH", "")) if p)
    words = ["experiments.run", "--app", str(app.folder), "--clients", str(app.clients), "--quiet", "--json"]
    words += ["--run-config", app.changes] if app.changes else []
    with tempfile.TemporaryDirectory() as folder:
        return timed(words, folder, limit, PYTHONPATH=path, PYTHONHASHSEED=str(hashes))


def compare(app: Listed, turns: int, limit: float) -> Row:
    """Ours, stock, ours, ``turns`` times."""
    rows: list[Row] = []
    for turn in range(turns):
        before, theirs, after = ours(app, limit, 2 * turn), stock(app, limit), ours(app, limit, 2 * turn + 1)
        rows.append({"stock": _facts(theirs), "ours": [_facts(before), _facts(after)]})
    return {"app": app.folder.name, "clients": app.clients, "config": app.changes, "turns": rows}


def _facts(ended: Ended) -> Row:
    """What is kept of a process: among it what the app printed, without blank lines."""
    out = [line.rstrip() for line in ended.out if line.strip()]
    summary = json.loads(out.pop()) if out and out[-1].startswith('{"digest"') else {}
    error = (summary.get("error") or ended.errors[-2000:]) if ended.code else ""
    facts = {"seconds": ended.seconds, "code": ended.code, "said": out[:50], "error": error}
    return {**facts, "digest": summary.get("digest"), "run_seconds": summary.get("seconds")}


def table(results: Sequence[Row]) -> list[str]:
    """The lines of apps.md; ratios are taken turn by turn, and only where both completed."""
    columns: dict[str, list[str]] = {}
    for row in results:
        stocks, owns = [turn["stock"] for turn in row["turns"]], [own for turn in row["turns"] for own in turn["ours"]]
        ratios = [
            median(own["seconds"] for own in turn["ours"]) / turn["stock"]["seconds"]
            for turn in row["turns"]
            if not any(ended["code"] for ended in (turn["stock"], *turn["ours"]))
        ]
        said = [ended["said"] for ended in stocks + owns]
        digests = {own["digest"] for own in owns}
        cells = {
            "app": row["app"],
            "clients": str(row["clients"]),
            "stock, s": _seconds(stocks),
            "ours, s": _seconds(owns),
            "ours / stock": ratio(median(ratios)) if ratios else "",
            "same output": "yes" if said.count(said[0]) == len(said) else "no",
            "same digest": "" if None in digests else "yes" if len(digests) == 1 else "no",
        }
        for name, cell in cells.items():
            columns.setdefault(name, []).append(cell)
    return aligned(columns)


def _seconds(ended: Sequence[Row]) -> str:
    """The shortest and the longest time, or that a process failed."""
    if any(one["code"] for one in ended):
        return "failed"
    low, high = (number(find(one["seconds"] for one in ended)) for find in (min, max))
    return low if low == high else f"{low}-{high}"


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit code."""
    parser = argparse.ArgumentParser(prog="python -m experiments.bench.apps", description=__doc__)
    parser.add_argument("list", type=Path)
    parser.add_argument("--turns", type=int, default=2, help="how often each is run (default: 2)")
    parser.add_argument("--limit", type=float, default=600, help="seconds that one process may take (default: 600)")
    parser.add_argument("--out", type=Path, default=Path("runs/bench-apps"), help="folder (default: runs/bench-apps)")
    options = parser.parse_args(argv)
    apps, results = read_list(options.list), []
    options.out.mkdir(parents=True, exist_ok=True)
    facts = {
        "date": time.strftime("%Y-%m-%d"), "machine": provenance.machine(), "versions": provenance.versions(),
        "commit": provenance.commit(ROOT), "turns": options.turns,
    }  # fmt: skip
    for app in apps:
        results.append(compare(app, options.turns, options.limit))
        (options.out / "apps.json").write_text(json.dumps({**facts, "apps": results}, indent=1), encoding="utf-8")
        (options.out / "apps.md").write_text("\n".join(table(results)) + "\n", encoding="utf-8")
        print(table(results[-1:])[-1], flush=True)
    turns = [turn for row in results for turn in row["turns"] if not turn["stock"]["code"]]
    worse = [own for turn in turns for own in turn["ours"] if own["code"]]
    return int(bool(worse))


if __name__ == "__main__":
    sys.exit(main())
