"""A script of test_resume.py: runs commands in forked processes that kill themselves with SIGKILL at a given point.

Each line of stdin is a request in JSON: the words of the command, the point, a number N. The points are ``before``,
``in`` and ``after`` the write of round N's checkpoint; ``states``, between the states of round N, which are stored in
segments here, and its checkpoint; ``line``, when half of round N's line is written; ``blocks``,
when N blocks of clients were trained. The exit code of the process is written to stdout.
"""

import json
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from experiments import run
from experiments.config.command_line import parse
from experiments.runs.setup import build
from fl_sim.executors import inline
from fl_sim.logs import line_file
from fl_sim.rounds import checkpoint
from fl_sim.states import client_states
from fl_sim.states.stored_states import StoredStates


def die(*_: Any) -> None:
    """End this process at once."""
    os.kill(os.getpid(), signal.SIGKILL)


def at_checkpoint(where: str, number: int) -> None:
    """Die before, in or after the write of a checkpoint."""
    save: Callable[..., Path] = checkpoint.save

    def dying(folder: Path, new: checkpoint.Checkpoint, keep: int) -> Path:
        if new.round != number:
            return save(folder, new, keep)
        if where == "before":
            die()
        if where == "in":  # leaves a file with the first half of the checkpoint
            os.fsync = lambda descriptor: (os.truncate(descriptor, os.fstat(descriptor).st_size // 2), die())[1]
        path = save(folder, new, keep)
        die()
        return path

    checkpoint.save = dying


def after_states(number: int) -> None:
    """Die when the states of a round are on the disk, before the checkpoint that names them."""
    client_states.MEMORY_BYTES = 0
    sync, done = StoredStates.sync, list[int]()

    def dying(states: StoredStates) -> None:
        sync(states)
        done.append(1)
        if len(done) == number:
            die()

    StoredStates.sync = dying  # type: ignore[method-assign]


def at_line(number: int) -> None:
    """Die in the middle of a line of rounds.jsonl."""
    append = line_file.append

    def dying(file: Any, data: bytes) -> None:
        if not (Path(file.name).name == "rounds.jsonl" and data.startswith(b'{"round":%d,' % number)):
            return append(file, data)
        append(file, data[: len(data) // 2])
        return die()

    line_file.append = dying


def after_blocks(number: int) -> None:
    """Die in the middle of a round's training or personal evaluation."""
    work, done = inline.run_plan, []

    def dying(*args: Any) -> Any:
        done.append(1)
        return die() if len(done) > number else work(*args)

    inline.run_plan = dying


def main() -> None:
    """Serve requests until stdin ends."""
    for line in sys.stdin:
        words, where, number = json.loads(line)
        build(parse(words).configs[0])  # imports what a run needs, so that the forked processes need not
        child = os.fork()
        if child == 0:
            if where == "blocks":
                after_blocks(number)
            elif where == "states":
                after_states(number)
            elif where == "line":
                at_line(number)
            else:
                at_checkpoint(where, number)
            os._exit(run.main(words))
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)


if __name__ == "__main__":
    main()
