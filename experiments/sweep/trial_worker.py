"""``python -m experiments.sweep.trial_worker``: a process that makes the runs of a sweep, for ``--parallel N``.

One byte goes out on stdout when it is ready. Batches of jobs come in on stdin, one pickle each; for each of them one
byte goes out when it is done, and what became of the runs is in their folders. Where the sweep is killed, stdin ends,
and this process ends its run as after SIGTERM: it goes on when the sweep does.
"""

import os
import pickle
import queue
import signal
import sys
import threading
from typing import Any

from experiments.command_ends import ended
from experiments.sweep.trial_batches import Job, make_batch

READY = b"+"
"""What a process answers once it can make runs."""
IDLE = object()
"""Comes out of the queue where there is nothing more to do."""


def read(jobs: "queue.Queue[Any]", working: threading.Event) -> None:
    """Read batches from stdin until it ends; then interrupt the run under way."""
    source = sys.stdin.buffer
    while True:
        try:
            jobs.put(pickle.load(source))
        except (EOFError, pickle.UnpicklingError):
            break
    jobs.put(IDLE)
    if working.is_set():
        os.kill(os.getpid(), signal.SIGTERM)


def main() -> int:
    """The process. Returns the exit code."""
    answers = os.fdopen(os.dup(1), "wb", buffering=0)
    os.dup2(2, 1)  # what the user's code prints is no answer
    jobs: queue.Queue[Any] = queue.Queue()
    working = threading.Event()
    threading.Thread(target=read, args=(jobs, working), daemon=True).start()
    answers.write(READY)
    while True:
        batch: list[Job] = jobs.get()
        if batch is IDLE:
            return 0
        working.set()
        make_batch(batch)
        working.clear()
        answers.write(b".")


if __name__ == "__main__":
    sys.exit(ended(main))
