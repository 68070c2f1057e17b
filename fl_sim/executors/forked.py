"""Calls a function in a forked process that is ended when it takes too long; only where processes can fork (Unix).

The forked process reads all memory of this one, so that the function needs no arguments; only its result is pickled.
"""

import ctypes
import os
import pickle
import select
import signal
import sys
import threading
import traceback
import warnings
from collections.abc import Callable
from contextlib import suppress
from typing import Any, NamedTuple, NoReturn

import torch

Beat = Callable[[], None]
"""Called by the function as it makes progress: its time begins anew."""
_BEAT, _RESULT, _ERROR = b".", b"R", b"E"


class Lost(NamedTuple):
    """Why a forked process returned nothing."""

    reason: str
    timed_out: bool = False


def call_forked(work: Callable[[Beat], object], limit_s: float) -> Any:
    """``work(beat)`` in a forked process, or ``Lost`` where it hangs or dies.

    Parameters
    ----------
    work : Callable
        The function. Its result is pickled; what it changes in memory is lost with the process.
    limit_s : float
        Seconds that may pass between two beats, and before the first and after the last one.

    Raises
    ------
    RuntimeError
        Where ``work`` raised: the message is the traceback in the forked process.
    """
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError):
            stream.flush()  # the forked process would print what is waiting once more
    reading, writing = os.pipe()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # other threads only hash models and write lines
        child = os.fork()
    if child == 0:
        os.close(reading)
        _work(work, writing)
    os.close(writing)
    try:
        answer = _receive(reading, limit_s)
        if answer is None:
            return Lost(f"no result within {limit_s:g} s (client_timeout)", timed_out=True)
    finally:
        os.close(reading)
        with suppress(ProcessLookupError):
            os.kill(child, signal.SIGKILL)  # it has nothing more to do, or it hangs
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if not answer:
        how = f"was killed by signal {-code}" if code < 0 else f"ended with exit code {code}"
        return Lost(f"its process {how} before it returned a result")
    if answer[:1] == _ERROR:
        raise RuntimeError(pickle.loads(answer[1:]))
    return pickle.loads(answer[1:])


def _receive(reading: int, limit_s: float) -> bytes | None:
    """What the forked process sent after its beats; empty where it died before; None where it took too long."""
    received = bytearray()
    while not silent(reading, limit_s):
        data = os.read(reading, 1 << 20)
        if not data:
            return bytes(received)
        received += data.lstrip(_BEAT) if not received else data
    return None


def silent(reading: int, seconds: float) -> bool:
    """Whether nothing comes within so many seconds."""
    return not select.select([reading], [], [], seconds)[0]


def _work(work: Callable[[Beat], object], writing: int) -> NoReturn:
    """The forked process: it ends with this function, and with its parent."""
    try:
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            if signal.getsignal(number) is not signal.SIG_IGN:
                signal.signal(number, signal.SIG_DFL)
        with suppress(OSError, AttributeError):  # only Linux can end a process with its parent
            ctypes.CDLL(None).prctl(1, signal.SIGKILL)
        if (threads := torch.get_num_threads()) == 1:
            _answer(work, writing)
        else:  # OpenMP's threads are not in a forked process; a new thread starts its own
            thread = threading.Thread(target=_answer, args=(work, writing, threads))
            thread.start()
            thread.join()
    finally:
        os._exit(1)


def _answer(work: Callable[[Beat], object], writing: int, threads: int = 1) -> None:
    try:
        torch.set_num_threads(threads)
        answer = _RESULT + pickle.dumps(work(lambda: _send(writing, _BEAT)), protocol=5)
    except BaseException:
        answer = _ERROR + pickle.dumps(traceback.format_exc())
    with suppress(OSError):
        _send(writing, answer)
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError):
            stream.flush()
    os._exit(0)


def _send(writing: int, data: bytes) -> None:
    left = memoryview(data)
    while left:
        left = left[os.write(writing, left) :]
