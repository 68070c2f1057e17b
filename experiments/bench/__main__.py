"""``python -m experiments.bench``: one command, one table; also JSON, Markdown and a PNG in the folder ``--out``. No paper.

Exit codes: 0 where every system ran or is not available for a reason that is told; 1 where one failed; 2 for bad flags; 130
when interrupted.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from typing import Any

from experiments.bench import ROOT
from experiments.bench.options import BadFlag, Options, parse

Results = dict[str, Any]


def main(argv: Sequence[str] | None = None) -> int:
    """The command. Returns the exit code."""
    try:
        options = parse(sys.argv[1:] if argv is None else argv)
        if find_spec("psutil") is None:
            raise BadFlag("psutil is not installed: pip install -e '.[bench]'")
    except BadFlag as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    try:
        results = bench(options)
    except KeyboardInterrupt:
        print(f"interrupted; what was done before is in {options.out}", file=sys.stderr)
        return 130
    report(results, options)
    return 1 if any(row["status"] == "failed" for row in results["rows"]) else 0


def bench(options: Options) -> Results:
    """All works, one after another; what was seen is written after each. What was started is ended, whatever happens."""
    from experiments import provenance
    from experiments.bench.children import process_tree
    from experiments.bench.tables import figures
    from experiments.bench.turns import Bench, compare

    logs = options.out / "logs"
    logs.mkdir(parents=True, exist_ok=True)
    results: Results = {
        "quick": options.quick,
        "date": time.strftime("%Y-%m-%d"),
        "machine": provenance.machine(),
        "versions": provenance.versions(),
        "commit": provenance.commit(ROOT),
        "memory": process_tree.MEMORY,
        "works": [],
        "rows": [],
    }
    mark = f"{os.getpid()}-{time.time_ns()}"
    with guarded(mark) as folder:
        common = Bench(mark, provenance.cores(), folder, logs, lambda line: print(line, file=sys.stderr, flush=True))
        for work, systems in options.works:
            compared = compare(work, systems, common)
            results["works"].append(figures.work_row(compared))
            results["rows"] += figures.rows(compared)
            save(results, options)
    return results


@contextmanager
def guarded(mark: str) -> Iterator[str]:
    """A folder for the moment. It and all children end with this process, also when it is killed: see ``guard``."""
    folder = tempfile.mkdtemp(prefix="flb")
    command = [sys.executable, "-m", "experiments.bench.children.guard", mark, folder]
    guard = subprocess.Popen(command, stdin=subprocess.PIPE, cwd=ROOT, start_new_session=True)
    try:
        yield folder
    finally:
        assert guard.stdin is not None
        guard.stdin.close()
        guard.wait()


def save(results: Results, options: Options) -> None:
    """The files."""
    from experiments.bench.tables.cpu_table import markdown
    from experiments.bench.tables.picture import draw  # here, because matplotlib loads slowly

    (options.out / "bench.md").write_text(markdown(results), encoding="utf-8")
    (options.out / "bench.json").write_text(json.dumps(results, allow_nan=False) + "\n", encoding="utf-8")
    draw(results, options.out / "bench.png")


def report(results: Results, options: Options) -> None:
    """The table for people, JSON for programs."""
    print((options.out / "bench.md").read_text(encoding="utf-8"))
    print(f"files: {options.out}/bench.json, bench.md, bench.png")
    if options.json:
        print(json.dumps(results, allow_nan=False))


if __name__ == "__main__":
    sys.exit(main())
