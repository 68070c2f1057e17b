"""The machine and the software that produced a result: processor, memory, versions, commit; no host or folder names."""

import os
import platform
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

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
