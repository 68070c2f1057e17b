"""A child's end of the line protocol: told "go", it does one round and answers with the seconds. No paper.

    parent: {job}           child: {"ready": true, "imported_at": ...}
    parent: go              child: {"seconds": 2.4, "examples": 2500, ...}      as often as wanted
    parent: evaluate        child: {"done": true, "accuracy": 0.38}

In place of any answer: ``{"unavailable": reason}`` or ``{"error": reason}``. Answers are JSON, one a line.
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


LAZY = ("torch._dynamo", "pandas")
"""Imported on first use, by torch.optim and torch.func, and to read a log: before a whole run that is timed after its imports."""


class Unavailable(Exception):
    """The system cannot run here, and that is no failure: a package or a feature is missing."""


class Tokens:
    """What a child is asked for, one line after another. What libraries print goes to stderr, out of the way."""

    def __init__(self) -> None:
        imported_at = time.monotonic()
        self._answers = os.fdopen(os.dup(1), "w", buffering=1, encoding="utf-8")
        os.dup2(2, 1)
        self.job: Facts = json.loads(sys.stdin.readline())
        if self.job["work"]["whole"]:
            for name in LAZY:
                importlib.import_module(name)
            imported_at = time.monotonic()
        self.imported_at = imported_at
        self._started = 0.0

    def imports_done(self) -> None:
        """For a system that imports after it has read its job."""
        self.imported_at = time.monotonic()

    def next(self, **facts: Any) -> bool:
        """Answer for the last go with ``facts`` (ready, at first) and wait for the next; False: no more, evaluate."""
        seconds = time.perf_counter() - self._started
        self.say(
            {"seconds": seconds, **facts}
            if self._started
            else {"ready": True, "imported_at": self.imported_at, **facts}
        )
        line = sys.stdin.readline().strip()
        if not line:
            os._exit(1)  # the parent is gone; this may be a thread of Flower's
        self._started = time.perf_counter()
        return line == "go"

    def say(self, answer: Facts) -> None:
        """One line to the parent."""
        self._answers.write(json.dumps(answer) + "\n")


def serve(main: Callable[[Tokens], Facts]) -> None:
    """Run a system: ``main`` does as it is told and returns the last facts (its accuracy)."""
    tokens = Tokens()
    try:
        tokens.say({"done": True, **main(tokens)})
    except Unavailable as error:
        tokens.say({"unavailable": str(error)})
    except BaseException as error:
        traceback.print_exc()
        tokens.say({"error": f"{type(error).__name__}: {error}"})
        sys.exit(1)
