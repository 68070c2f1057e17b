"""The processes of a silo, as their parent has them: started once, watched while they work, ended whatever happens.

On a CPU they are forked, which takes a tenth of a second. Where a GPU is in use, or Ray, a process cannot be forked,
and new ones are started, which takes seconds.
"""

import mmap
import os
import socket
import subprocess
import sys
import tempfile
import threading
import time
import traceback
import warnings
import weakref
from collections.abc import Callable, Sequence
from contextlib import suppress
from itertools import pairwise
from multiprocessing.connection import Connection, wait
from signal import SIGKILL
from typing import Any

import numpy as np
import torch

from clients.silo.rank import COMPUTES, live_with, serve
from clients.silo.rank_messages import post, receive
from clients.silo.rank_work import Work
from clients.silo.silo_options import Silo
from clients.silo.sum_memory import SumMemory, most_nodes
from fl_sim.learning.loss import Loss
from fl_sim.learning.sharded.shard_tree import subtrees
from fl_sim.learning.sharded.sharded_loss import ShardedLoss
from fl_sim.leaving import leave

START_S = 120.0
"""Seconds that the processes may take to start."""
clock = time.monotonic
"""Seconds, by which a rank that hangs is found."""
OTHERS_S = 0.5
"""Seconds in which a failure is sought that caused the one that was seen first: a rank misses one that has died."""


class RankFailed(Exception):
    """A rank died, hangs or raised: its number, and why."""

    def __init__(self, rank: int, why: str) -> None:
        super().__init__(f"rank {rank} {why}")
        self.rank, self.why = rank, why


class _Rank:
    """A process: forked (``popen`` None) or started."""

    def __init__(self, pid: int, connection: Connection, popen: subprocess.Popen[bytes] | None = None) -> None:
        self.pid, self.connection, self.popen = pid, connection, popen
        self.code: int | None = None

    def ended(self) -> str:
        """How the process ended, in words; empty while it lives."""
        code = self.popen.poll() if self.popen is not None else self._forked_code()
        if code is None:
            return ""
        return f"was killed by signal {-code}" if code < 0 else f"ended with exit code {code}"

    def _forked_code(self) -> int | None:
        if self.code is None:
            try:
                pid, status = os.waitpid(self.pid, os.WNOHANG)
            except ChildProcessError:
                return 0
            self.code = os.waitstatus_to_exitcode(status) if pid else None
        return self.code

    def end(self) -> None:
        """Kill the process, if it lives, and wait for it."""
        self.connection.close()
        if self.ended():
            return
        with suppress(ProcessLookupError):
            os.kill(self.pid, SIGKILL)
        if self.popen is not None:
            self.popen.wait()
        else:
            with suppress(ChildProcessError):
                os.waitpid(self.pid, 0)


class SiloGroup:
    """The processes of one silo, which have joined into a group.

    Parameters
    ----------
    silo : Silo
        How many, and how they sum.
    losses : Callable
        Rank -> its loss, without the samples of the task.

    Raises
    ------
    RankFailed
        Where one of them cannot start.
    ConfigError
        Where there is too little memory for their sums.
    """

    def __init__(self, silo: Silo, losses: Callable[[int], Loss]) -> None:
        self.silo, self.ranks = silo, list[_Rank]()
        weakref.finalize(self, _end, os.getpid(), self.ranks)
        self._file = tempfile.TemporaryFile()  # noqa: SIM115  # open as long as the group lives
        self._file.truncate(16 * silo.processes)
        memory = mmap.mmap(self._file.fileno(), 16 * silo.processes)
        self.beats = np.frombuffer(memory, np.int64).reshape(silo.processes, 2)
        self._sums = self._memory(losses(0))
        start = self._start if losses(0).device.type != "cpu" or _on_ray() or not hasattr(os, "fork") else self._fork
        try:
            for rank in range(silo.processes):
                self.ranks.append(start(rank, losses(rank)))
            [port] = self._answers([0], "port", START_S)
            for rank in range(1, silo.processes):
                self._send(rank, port)
            self._answers(range(silo.processes), "ready", START_S)
        except BaseException:
            self.end()
            raise
        finally:  # the ranks have it, and with the last of them it is gone
            if self._sums is not None:
                self._sums.close()

    def _memory(self, loss: Loss) -> SumMemory | None:
        """The memory for the ranks' sums; None where they are sent."""
        if not self.silo.in_memory(loss.device):
            return None
        edges, shards = self.silo.edges(), self.silo.shards
        now = sum(len(subtrees(a, b, shards)) for a, b in pairwise(edges))
        slots = most_nodes(self.silo.processes, shards) if self.silo.balance else now
        return SumMemory.reserved(self.silo.processes, slots, ShardedLoss(loss, shards).width, loss.dtype)

    def train(self, works: Sequence[Work]) -> list[Any]:
        """The answer of each rank. Raises RankFailed; the group is then of no use, and must be ended."""
        for rank, work in enumerate(works):
            self._send(rank, work)
        return self._answers(range(len(works)), "done", self.silo.timeout)

    def end(self) -> None:
        """End all processes."""
        _end(os.getpid(), self.ranks)

    def _send(self, rank: int, what: object) -> None:
        try:
            post(self.ranks[rank].connection, what)
        except OSError:
            raise self._failure([rank]) from None

    def _answers(self, ranks: Sequence[int], kind: str, limit_s: float) -> list[Any]:
        """What these ranks say, of one kind; the limit begins anew with each step of any of them."""
        found: dict[int, Any] = {}
        steps, since = self.beats[:, 0].copy(), clock()
        while waiting := [r for r in ranks if r not in found]:
            ready = wait([self.ranks[r].connection for r in waiting], min(limit_s, 0.5))
            for rank in waiting:
                if self.ranks[rank].connection not in ready:
                    continue
                try:
                    said, what = receive(self.ranks[rank].connection)
                except (EOFError, OSError):
                    raise self._failure([rank]) from None
                if said != kind:
                    raise self._failure([], (rank, what))
                found[rank], since = what, clock()
            if not np.array_equal(steps, self.beats[:, 0]):
                steps, since = self.beats[:, 0].copy(), clock()
            elif clock() - since > limit_s:
                busy = [r for r in waiting if self.beats[r, 1] == COMPUTES] or waiting
                raise RankFailed(busy[0], f"hangs: no step within {limit_s:g} s (silo.timeout)")
        return [found[rank] for rank in ranks]

    def _failure(self, dead: list[int], raised: tuple[int, str] | None = None) -> RankFailed:
        """The first cause: a rank that has died, before one that raised, perhaps because it missed the other."""
        until = time.monotonic() + OTHERS_S
        while time.monotonic() < until:
            for rank in [*dead, *range(len(self.ranks))]:
                how = self.ranks[rank].ended()
                if how and "code 0" not in how:
                    return RankFailed(rank, how)
            time.sleep(0.02)
        if raised is not None:
            return RankFailed(raised[0], f"raised:\n{raised[1]}")
        return RankFailed(dead[0], "closed its connection")

    # How they start -------------------------------------------------------------------------------------------------

    def _fork(self, rank: int, loss: Loss) -> _Rank:
        for stream in (sys.stdout, sys.stderr):
            with suppress(OSError, ValueError):
                stream.flush()  # the forked process would print what is waiting once more
        (ours, theirs), parent, threads = _pipe(), os.getpid(), torch.get_num_threads()
        at_once = threading.current_thread() is threading.main_thread()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # other threads only hash models and write lines
            child = os.fork()
        if child:
            theirs.close()
            return _Rank(child, ours)
        try:
            ours.close()
            live_with(parent, at_once)

            def run() -> None:
                torch.set_num_threads(threads)
                serve(rank, theirs, loss, self.silo, self.beats[rank], self._sums)

            if threads == 1:
                run()
            else:  # OpenMP's threads are not in a forked process; a new thread starts its own
                thread = threading.Thread(target=run)
                thread.start()
                thread.join()
        except BaseException:
            traceback.print_exc()
        finally:
            leave(0)

    def _start(self, rank: int, loss: Loss) -> _Rank:
        ours, theirs = _pipe()
        at_once = threading.current_thread() is threading.main_thread()
        handles = theirs.fileno(), self._file.fileno()
        words = [*map(str, handles), str(rank), str(os.getpid()), str(int(at_once))]
        paths = os.pathsep.join(path or os.getcwd() for path in sys.path)
        command = [sys.executable, "-m", "clients.silo.rank_process", *words]
        passed = handles + (self._sums.handles if self._sums is not None else ())
        popen = subprocess.Popen(command, pass_fds=passed, env={**os.environ, "PYTHONPATH": paths})
        theirs.close()
        process = _Rank(popen.pid, ours, popen)
        from clients.silo.rank_process import first_message  # imported here, because few silos start new processes

        with suppress(OSError):  # it has ended already; how shows when it is waited for
            ours.send_bytes(first_message(loss, self.silo, self._sums))
        return process


def _pipe() -> tuple[Connection, Connection]:
    ours, theirs = socket.socketpair()
    return Connection(ours.detach()), Connection(theirs.detach())


def _end(owner: int, ranks: list[_Rank]) -> None:
    """End processes, in the process that started them."""
    if os.getpid() == owner:
        while ranks:
            ranks.pop().end()


def _on_ray() -> bool:
    """Whether this is a process of Ray, whose threads do not survive a fork."""
    ray: Any = sys.modules.get("ray")
    return ray is not None and bool(ray.is_initialized())
