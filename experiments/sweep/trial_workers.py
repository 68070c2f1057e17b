"""Several processes that make the runs of a sweep at the same time, for ``--parallel N``."""

import os
import pickle
import selectors
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Self

from experiments.config.choices import PACKAGES
from experiments.sweep.trial_batches import Job
from fl_sim.errors import ConfigError

GRACE_S = 60
"""Seconds that a process may take to end its run, once it is asked to."""


class TrialWorkers:
    """A context manager around ``count`` processes; what they print goes to files ``worker-N.log`` in ``folder``."""

    def __init__(self, count: int, folder: Path) -> None:
        paths = os.pathsep.join(path or os.getcwd() for path in sys.path)
        command = [sys.executable, "-m", "experiments.sweep.trial_worker"]
        self.processes = []
        for number in range(count):
            with (folder / f"worker-{number}.log").open("ab") as printed:
                process = subprocess.Popen(
                    command,
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=printed,
                    env={**os.environ, "PYTHONPATH": paths},
                    start_new_session=True,  # Ctrl-C reaches the sweep alone, which then asks them to end
                )
            self.processes.append(process)

    def run(self, batches: Sequence[Sequence[Job]]) -> Iterator[Sequence[Job]]:
        """Make all batches, each on the process that is free first; yields a batch once its runs are over.

        Raises RuntimeError where a process dies.
        """
        waiting, busy = list(batches), dict[int, Sequence[Job]]()
        with selectors.DefaultSelector() as selector:
            for number, process in enumerate(self.processes):
                assert process.stdout is not None
                selector.register(process.stdout, selectors.EVENT_READ, number)
                if waiting:
                    busy[number] = self._send(number, waiting.pop(0))
            while busy:
                for key, _ in selector.select():
                    number = int(key.data)
                    if not os.read(key.fd, 1):
                        raise RuntimeError(self._died(number, busy.get(number, ())))
                    done = busy.pop(number)
                    if waiting:
                        busy[number] = self._send(number, waiting.pop(0))
                    yield done

    def _send(self, number: int, batch: Sequence[Job]) -> Sequence[Job]:
        pipe = self.processes[number].stdin
        assert pipe is not None
        pipe.write(pickle.dumps(list(batch)))
        pipe.flush()
        return batch

    def _died(self, number: int, batch: Sequence[Job]) -> str:
        code = self.processes[number].wait()
        over, cure = ", ".join(str(job.place) for job in batch), f"see worker-{number}.log, and repeat the call"
        return f"parallel: process {number} ended with code {code} over {over}; {cure}"

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Ask the processes to end, and end those that do not."""
        for process in self.processes:
            assert process.stdin is not None and process.stdout is not None
            with suppress(BrokenPipeError):  # it has died
                process.stdin.close()
        for process in self.processes:
            try:
                process.wait(GRACE_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            assert process.stdout is not None
            process.stdout.close()


def check_sendable(jobs: Sequence[Job]) -> None:
    """Raise ConfigError for objects that other processes cannot get."""
    for job in jobs:
        for kind in PACKAGES:
            choice = getattr(job.config, kind)
            if choice.is_object or choice.name.startswith("__main__:"):
                what = f"{kind}.name = {choice.name!r}: an object from Python, which other processes cannot get"
                raise ConfigError(f"{what}; give package.module:Name, or leave parallel out")
