"""Where a result comes from: machine, versions, commit, seeds, what was tuned on what; no host or folder names.

A run's events ``start`` and ``resumed`` hold its commit and machine (``of_run``); a page of results states them
(``origin``).
"""

import functools
import os
import platform
import subprocess
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fl_sim.logs.reader import RunLog

ROOT = Path(__file__).parents[1]
"""The project's folder, where it is a clone."""
PACKAGES = ("torch", "numpy", "flwr", "ray", "pfl", "blazefl")
"""Packages whose versions are recorded."""


def cores() -> int:
    """Number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def machine() -> dict[str, object]:
    """Processor, number of cores, memory in GiB (None where the system does not report it), operating system."""
    return {
        "cpu": processor(Path("/proc/cpuinfo")),
        "cores": cores(),
        "memory_gib": memory_gib(),
        "system": f"{platform.system()} {platform.machine()}",
    }


def memory_gib() -> float | None:
    """The machine's memory in GiB, to one decimal; None where the system does not report it."""
    try:
        return round(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**30, 1)
    except (
        AttributeError,
        ValueError,
        OSError,
    ):  # os.sysconf is POSIX, and not every POSIX system has these two values
        return None


def processor(cpuinfo: Path) -> str:
    """The processor's model name from the file ``cpuinfo`` (Linux), else the name that Python's ``platform`` gives."""
    if cpuinfo.is_file():
        for line in cpuinfo.read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def versions() -> dict[str, str | None]:
    """Versions of Python and of ``PACKAGES``; None where a package is not installed."""
    found: dict[str, str | None] = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = None
    return found


def commit(root: Path) -> str | None:
    """Short id of the commit at ``root``, with ``+changes`` if tracked files are modified; None outside a git clone."""

    def git(*arguments: str) -> str | None:
        try:
            done = subprocess.run(["git", "-C", str(root), *arguments], capture_output=True, text=True)
        except OSError:  # git is not installed
            return None
        return done.stdout.strip() if done.returncode == 0 else None

    head = git("rev-parse", "--short", "HEAD")
    return head and head + ("+changes" if git("status", "--porcelain", "--untracked-files=no") else "")


@functools.cache
def of_run() -> dict[str, object]:
    """The commit of this project (None where it is no clone), and the processor and its cores, for a run's log."""
    own = commit(ROOT) if (ROOT / ".git").exists() else None
    return {"commit": own, "cpu": processor(Path("/proc/cpuinfo")), "cores": cores()}


def origin(logs: Sequence["RunLog"], tuned: str) -> str:
    """Sentences for a page of results: commits, machines, seeds and versions of the runs, and ``tuned``.

    What the log of an older run does not hold is said to be unknown. Raises ValueError where ``tuned`` is empty: it
    says which settings were chosen on which data, or that none were.
    """
    if not tuned.strip():
        raise ValueError("tuned = '': say what was tuned on what, such as 'nothing', or 'lr on the validation share'")
    began = [log.events[log.events["event"].isin(["start", "resumed"])].to_dict("records") for log in logs]
    where = [row for rows in began for row in (rows or [{}])]
    commits = sorted({str(row.get("commit") or "unknown") for row in where})
    machines = sorted({f"{row['cpu']}, {int(row['cores'])} cores" if row.get("cpu") else "unknown" for row in where})
    seeds = sorted({int(log.config.get("seed", 0)) for log in logs})
    known = {f"{name} {version}" for log in logs for name, version in log.summary.get("versions", {}).items()}
    return (
        f"{len(logs)} runs at commit {', '.join(commits)}; machine: {'; '.join(machines)}; "
        f"seeds {', '.join(map(str, seeds))}; {', '.join(sorted(known))}. Tuned: {tuned.strip()}."
    )
