"""Finds a child process with all its descendants, by a mark in the environment; freezes, measures and kills them.

Ray's daemons outlive the process that started them and change their titles (which overwrites their environment in
/proc), so a tree is every marked process and every descendant of one.
"""

import contextlib
import sys
import time
from collections.abc import Callable

import psutil

MARK = "FL_SIM_BENCH_MARK"
"""The environment variable that marks a child process; the processes that it starts inherit it."""
MEMORY = "pss" if sys.platform == "linux" else "rss"
"""PSS counts a page that n processes share as 1/n in each, so that a sum counts it once; RSS counts it n times."""


def tree(mark: str) -> dict[int, psutil.Process]:
    """The processes whose mark starts with ``mark``, and their descendants, by id."""
    children: dict[int, list[psutil.Process]] = {}
    found: dict[int, psutil.Process] = {}
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, OSError):
            if process.status() == psutil.STATUS_ZOMBIE:
                continue
            children.setdefault(process.ppid(), []).append(process)
            if process.environ().get(MARK, "").startswith(mark):
                found[process.pid] = process
    queue = list(found)
    while queue:
        for process in children.get(queue.pop(), []):
            if process.pid not in found:
                found[process.pid] = process
                queue.append(process.pid)
    return found


def freeze(mark: str) -> None:
    """Suspend a tree, so that it does not poll while others are timed: Flower polls every node ten times a second."""
    _each(tree(mark), psutil.Process.suspend)
    _each(tree(mark), psutil.Process.suspend)  # again, for processes that were started meanwhile


def thaw(mark: str) -> None:
    """Resume a suspended tree."""
    _each(tree(mark), psutil.Process.resume)


def kill(mark: str) -> None:
    """Kill a tree, frozen or not; repeated, because a process may start another one meanwhile."""
    for _ in range(100):
        found = tree(mark)
        if not found:
            return
        _each(found, psutil.Process.kill)
        time.sleep(0.05)


def memory(mark: str) -> tuple[int, int]:
    """Memory of a tree in bytes: (sum of the sizes that ``MEMORY`` names, sum of the resident sets)."""
    total = resident = 0
    for process in tree(mark).values():
        with contextlib.suppress(psutil.Error, OSError):
            info = process.memory_full_info() if MEMORY == "pss" else process.memory_info()
            total += info.pss if MEMORY == "pss" else info.rss
            resident += info.rss
    return total, resident


def cpu_s(mark: str) -> float:
    """Processor seconds that a tree has used until now, ended children included."""
    total = 0.0
    for process in tree(mark).values():
        with contextlib.suppress(psutil.Error, OSError):
            times = process.cpu_times()
            total += (
                times.user
                + times.system
                + getattr(times, "children_user", 0.0)
                + getattr(times, "children_system", 0.0)
            )
    return total


def _each(found: dict[int, psutil.Process], action: Callable[[psutil.Process], object]) -> None:
    for process in found.values():
        with contextlib.suppress(psutil.Error, OSError):
            action(process)
