"""How a command ends: its exit code after Ctrl-C, SIGTERM or SIGHUP, and when its output cannot be written.

SIGTERM and SIGHUP (a closed terminal) end a command as Ctrl-C does: the run under way writes its last finished round
and its summary. The exit code is 128 plus the signal's number: 130, 143, 129. A signal that this process was started to
ignore (``nohup``) stays ignored.
"""

import argparse
import errno
import os
import re
import signal
import sys
from collections.abc import Callable
from contextlib import suppress
from types import FrameType
from typing import NoReturn

from fl_sim.leaving import crashes_at_its_end, leave, no_exit
from fl_sim.registry import nearest

SIGNALS = tuple(getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name))
"""The signals that end a command."""
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
"""Error numbers of a disk, a quota or a file that is full."""


class Arguments(argparse.ArgumentParser):
    """The arguments of a command. A wrong one ends it with code 2 and one line, which has the form of a call."""

    def error(self, message: str) -> NoReturn:
        """Print the line, with the flag that is nearest to an unknown one, and end."""
        unknown = re.search(r"unrecognized arguments: (--?[\w-]+)", message)
        near = nearest(unknown[1], re.findall(r"--[\w-]+", self.format_help())) if unknown else ""
        print(f"error: {message}{near}; {' '.join(self.format_usage().split())}", file=sys.stderr)
        raise SystemExit(2)


class Interrupted(KeyboardInterrupt):
    """A signal other than Ctrl-C asked this process to end."""

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.number = number


_received: list[int] = []
"""The signals that interrupted this command."""


def signal_of(error: KeyboardInterrupt) -> signal.Signals:
    """The signal behind an interruption; a library may have replaced ``Interrupted`` by a plain KeyboardInterrupt."""
    number = error.number if isinstance(error, Interrupted) else (*_received, signal.SIGINT)[0]
    return signal.Signals(number)


def exit_code(error: KeyboardInterrupt) -> int:
    """The exit code of a command that was interrupted: 128 plus the number of the signal."""
    return 128 + signal_of(error)


def reason(error: BaseException) -> str:
    """What ``summary.json`` says under ``stopped`` of an interrupted run; empty for other errors."""
    if not isinstance(error, KeyboardInterrupt):
        return ""
    number = signal_of(error)
    return "interrupted" if number == signal.SIGINT else f"interrupted by {number.name}"


def is_full(error: BaseException) -> bool:
    """Whether an error, or the one that it was raised from, is that of a full disk."""
    causes = (error, error.__cause__)
    return any(isinstance(cause, OSError) and cause.errno in FULL for cause in causes)


def interrupt(number: int, frame: FrameType | None = None) -> None:
    """The handler of signals while a command works: raises KeyboardInterrupt, ``Interrupted`` but for Ctrl-C."""
    _received.append(number)
    raise KeyboardInterrupt if number == signal.SIGINT else Interrupted(number)


def handle(handler: Callable[[int, FrameType | None], None]) -> None:
    """Let ``handler`` answer the signals that end a command, but for those that this process ignores."""
    _received.clear()
    for number in SIGNALS:
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, handler)


def ended(command: Callable[[], int]) -> int:
    """Run the function of a command, which returns its exit code, in the process of that command.

    Returns
    -------
    int
        Its exit code; after an interruption 128 plus the signal's number; 1 where its output could not be written.
    """
    handle(interrupt)
    try:
        with no_exit():
            code = command()
    except KeyboardInterrupt as error:
        code = exit_code(error)
        with suppress(OSError):
            print("interrupted", file=sys.stderr)
    code = _flushed(code)
    if crashes_at_its_end():
        leave(code)
    return code


def _flushed(code: int) -> int:
    """``code``, or 1 instead of 0 where what was printed cannot be written: Python itself would end with 120."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (OSError, ValueError) as error:  # ValueError: the stream is closed
            if isinstance(error, OSError) and error.errno != errno.EPIPE and stream is sys.stdout:
                code = code or 1
                with suppress(OSError):
                    print(f"error: the output could not be written ({error.strerror})", file=sys.stderr)
            with suppress(OSError, ValueError):  # Python flushes again when it ends, and must not fail then
                os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
    return code
