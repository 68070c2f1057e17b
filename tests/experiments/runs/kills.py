"""Forks one child a line of stdin (JSON: the command's words, where it dies): it runs the command and kills itself with SIGKILL.

Where: ``before``, ``in`` or ``after`` the write of round N's checkpoint; ``line``: half of round N's line is written;
``blocks``: so many blocks of clients were trained. Answers with how the child ended. A script of test_resume.py.
"""

import json
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from experiments import run
from fl_sim.executors import inline
from fl_sim.logs import writer
from fl_sim.rounds import checkpoint


def die(*_: Any) -> None:
    """As a power cut would have it."""
    os.kill(os.getpid(), signal.SIGKILL)


def at_checkpoint(where: str, number: int) -> None:
    """Die around a checkpoint."""
    save: Callable[..., Path] = checkpoint.save

    def dying(folder: Path, made: checkpoint.Checkpoint, keep: int) -> Path:
        if made.round != number:
            return save(folder, made, keep)
        if where == "before":
            die()
        if where == "in":  # what was written so far is half of the file
            os.fsync = lambda descriptor: (os.truncate(descriptor, os.fstat(descriptor).st_size // 2), die())[1]
        path = save(folder, made, keep)
        die()
        return path

    checkpoint.save = dying


def at_line(number: int) -> None:
    """Die in the middle of a line of rounds.jsonl."""
    append = writer._append

    def dying(file: Any, data: bytes) -> None:
        if not (Path(file.name).name == "rounds.jsonl" and data.startswith(b'{"round":%d,' % number)):
            return append(file, data)
        append(file, data[: len(data) // 2])
        return die()

    writer._append = dying


def after_blocks(number: int) -> None:
    """Die in the middle of a round's training, or of its personal evaluation."""
    work, done = inline.run_plan, []

    def dying(*args: Any) -> Any:
        done.append(1)
        return die() if len(done) > number else work(*args)

    inline.run_plan = dying


def main() -> None:
    """Until stdin ends."""
    for line in sys.stdin:
        words, where, number = json.loads(line)
        child = os.fork()
        if child == 0:
            if where == "blocks":
                after_blocks(number)
            elif where == "line":
                at_line(number)
            else:
                at_checkpoint(where, number)
            os._exit(run.main(words))
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)


if __name__ == "__main__":
    main()
