"""``python -m experiments.bench``: compares the systems; writes bench.json, bench.md and bench.png into ``--out``.

Exit codes: 0 if every system ran or is not available on this machine (the table gives the reason); 1 if a system
failed; 2 for invalid flags; 130 after Ctrl-C, 143 after SIGTERM.
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
from experiments.command_ends import ended, exit_code

Results = dict[str, Any]


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit code."""
    try:
        options = parse(sys.argv[1:] if argv is None else argv)
        if find_spec("psutil") is None:
            raise BadFlag("psutil is not installed: pip install -e '.[bench]'")
    except BadFlag as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    try:
        results = bench(options)
    except KeyboardInterrupt as error:
        print(f"interrupted; what was done before is in {options.out}", file=sys.stderr)
        return exit_code(error)
    report(results, options)
    return 1 if any(row["status"] == "failed" for row in results["rows"]) else 0


def bench(options: Options) -> Results:
    """Measure all requested workloads, one after another.

    The files in ``options.out`` are rewritten after each workload, so that an interruption loses one workload at most.
    """
    from experiments import provenance
    from experiments.bench.children import process_tree
    from experiments.bench.interleaving import Session, compare
    from experiments.bench.tables import result_rows

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
        session = Session(mark, provenance.cores(), folder, logs, print_progress)
        for work, systems in options.works:
            measured = compare(work, systems, session)
            results["works"].append(result_rows.work_row(measured))
            results["rows"] += result_rows.rows(measured)
            save(results, options)
    return results


def print_progress(line: str) -> None:
    """Print one line about what was just done; on stderr, because stdout is for the results."""
    print(line, file=sys.stderr, flush=True)


@contextmanager
def guarded(mark: str) -> Iterator[str]:
    """A temporary folder, and a guard process that ends all child processes and removes the folder.

    The guard acts when this context ends and also when this process is killed: see ``children.guard``.
    """
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
    """Write the results as Markdown, JSON and a bar chart."""
    from experiments.bench.tables.bar_chart import draw  # imported here, because matplotlib loads slowly
    from experiments.bench.tables.cpu_table import markdown

    (options.out / "bench.md").write_text(markdown(results), encoding="utf-8")
    (options.out / "bench.json").write_text(json.dumps(results, allow_nan=False) + "\n", encoding="utf-8")
    draw(results, options.out / "bench.png")


def report(results: Results, options: Options) -> None:
    """Print the table and the names of the files; with ``--json`` also the results as one line of JSON."""
    print((options.out / "bench.md").read_text(encoding="utf-8"))
    print(f"files: {options.out}/bench.json, bench.md, bench.png")
    if options.json:
        print(json.dumps(results, allow_nan=False))


if __name__ == "__main__":
    sys.exit(ended(main))
