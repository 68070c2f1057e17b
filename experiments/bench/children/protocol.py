"""The child's end of the line protocol: after a line "go" it does one repetition and answers with the seconds.

    parent: {job}           child: {"ready": true, "imported_at": ...}
    parent: go              child: {"seconds": 2.4, "examples": 2500, ...}      any number of times
    parent: evaluate        child: {"done": true, "accuracy": 0.38}

In place of any answer: ``{"unavailable": reason}`` or ``{"error": reason}``. Each answer is one line of JSON.
"""

import importlib
import json
import os
import sys
import time
import traceback
from collections.abc import Callable
from typing import Any

Facts = dict[str, Any]
"""A JSON object: a job, or what a child reports."""

LAZY_IMPORTS = ("torch._dynamo", "pandas")
"""Modules that torch.optim, torch.func and the log reader import at first use.

Whole runs are timed from after the imports, so these are imported before the clock starts.
"""


class Unavailable(Exception):
    """The system cannot run on this machine because a package or a feature is missing; this is not a failure."""


class ParentConnection:
    """Receives the parent's requests and sends the answers. What libraries print to stdout is redirected to stderr."""

    def __init__(self) -> None:
        imported_at = time.monotonic()
        self._answers = os.fdopen(os.dup(1), "w", buffering=1, encoding="utf-8")
        os.dup2(2, 1)
        self.job: Facts = json.loads(sys.stdin.readline())
        if self.job["work"]["whole"]:
            for name in LAZY_IMPORTS:
                importlib.import_module(name)
            imported_at = time.monotonic()
        self.imported_at = imported_at
        self._started = 0.0

    def imports_done(self) -> None:
        """Set the end of the imports to now, for a system that imports more after it has read its job."""
        self.imported_at = time.monotonic()

    def next_requested(self, **facts: object) -> bool:
        """Answer the last request with ``facts``, then wait for the next one.

        The first call answers the job itself: the system is ready. Returns True if another repetition is requested, and
        False if the final evaluation is.
        """
        seconds = time.perf_counter() - self._started
        self.send(
            {"seconds": seconds, **facts}
            if self._started
            else {"ready": True, "imported_at": self.imported_at, **facts}
        )
        line = sys.stdin.readline().strip()
        if not line:
            os._exit(1)  # the parent is gone; sys.exit would end only this thread, which may be one of Flower's
        self._started = time.perf_counter()
        return line == "go"

    def send(self, answer: Facts) -> None:
        """Send one answer to the parent."""
        self._answers.write(json.dumps(answer) + "\n")


def serve(main: Callable[[ParentConnection], Facts]) -> None:
    """Run a system: ``main`` fulfils the requests and returns the last facts (its accuracy)."""
    parent = ParentConnection()
    try:
        parent.send({"done": True, **main(parent)})
    except Unavailable as error:
        parent.send({"unavailable": str(error)})
    except BaseException as error:
        traceback.print_exc()
        parent.send({"error": f"{type(error).__name__}: {error}"})
        sys.exit(1)
