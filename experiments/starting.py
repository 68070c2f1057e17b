"""While a command imports what it needs, which takes seconds, a signal ends it at once and without a traceback.

``experiments.command_ends`` takes over as soon as the command works. This file imports Python's own modules only.
"""

import os
import signal
import sys
from contextlib import suppress
from types import FrameType


def is_command() -> bool:
    """Whether this process was started as ``python -m experiments.COMMAND`` or ``fl-sim``, and imports its code now."""
    program, words = os.path.basename(sys.argv[0]) if sys.argv else "", sys.orig_argv
    module = words[words.index("-m") + 1] if "-m" in words[:-1] else ""
    return program == "fl-sim" or (program == "-m" and module.split(".")[0] == "experiments")


def end_at_once() -> None:
    """Let Ctrl-C, SIGTERM and SIGHUP end this process: nothing has begun that could be lost."""
    for name in ("SIGINT", "SIGTERM", "SIGHUP"):
        number = getattr(signal, name, None)
        if number is not None and signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, _leave)


def _leave(number: int, frame: FrameType | None) -> None:
    with suppress(OSError):
        os.write(2, b"interrupted\n")
    os._exit(128 + number)
