"""Several processes that make the runs of a sweep at the same time, for ``--parallel N``.

A process that dies over a run, as where memory runs out, is that run's failure: another takes its place, and the other
runs go on.
"""

import os
import pickle
import selectors
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Self

from experiments.command_ends import SIGNALS
from experiments.config.choices import PACKAGES
from experiments.sweep.trial_batches import Job
from experiments.sweep.trial_runs import failed, made
from fl_sim.errors import ConfigError, RoundFailed

GRACE_S = 60
"""Seconds that a process may take to end its run, once it is asked to."""
COMMAND = (sys.executable, "-m", "experiments.sweep.trial_worker")
"""What a process runs."""


class TrialWorkers:
    """A context manager around ``count`` processes; what they print goes to files ``worker-N.log`` in ``folder``."""

    def __init__(self, count: int, folder: Path) -> None:
        self.folder, self.ready = folder, set[int]()
        self.processes = [self._start(number) for number in range(count)]

    def _start(self, number: int) -> subprocess.Popen[bytes]:
        paths = os.pathsep.join(path or os.getcwd() for path in sys.path)
        self.ready.discard(number)
        with (self.folder / f"worker-{number}.log").open("ab") as printed:
            return subprocess.Popen(
                COMMAND,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=printed,
                env={**os.environ, "PYTHONPATH": paths},
                start_new_session=True,  # Ctrl-C reaches the sweep alone, which then asks them to end
            )

    def run(self, batches: Sequence[Sequence[Job]]) -> Iterator[Sequence[Job]]:
        """Make all batches, each on the process that is free first; yields a batch once its runs are over.

        The run of a process that dies is noted as failed; the runs of a batch are then made one by one, which tells
        whose fault it was. Raises ConfigError where a process cannot start, and KeyboardInterrupt where one was asked
        to end, as by SIGTERM: its run goes on when the sweep does.
        """
        waiting, busy = list(batches), dict[int, Sequence[Job]]()
        with selectors.DefaultSelector() as selector:
            for number in range(len(self.processes)):
                if self.processes[number].poll() is not None:
                    self.processes[number] = self._start(number)
                selector.register(self._answers(number), selectors.EVENT_READ, number)
            for number in sorted(self.ready):
                self._give(number, waiting, busy)
            while waiting or busy:
                for key, _ in selector.select():
                    number, answer = int(key.data), os.read(key.fd, 1)
                    done = busy.pop(number, ())
                    if answer:
                        self.ready.add(number)
                    else:
                        selector.unregister(key.fileobj)
                        done = self._dead(number, done, waiting)
                        if waiting:
                            self.processes[number] = self._start(number)
                            selector.register(self._answers(number), selectors.EVENT_READ, number)
                    self._give(number, waiting, busy)
                    if done:
                        yield done

    def _answers(self, number: int) -> int:
        pipe = self.processes[number].stdout
        assert pipe is not None
        return pipe.fileno()

    def _give(self, number: int, waiting: list[Sequence[Job]], busy: dict[int, Sequence[Job]]) -> None:
        """Send the next batch to a process that is ready for one."""
        pipe = self.processes[number].stdin
        assert pipe is not None
        if waiting and number in self.ready and number not in busy and not pipe.closed:
            with suppress(BrokenPipeError):  # it has died, which its answers will tell
                pipe.write(pickle.dumps(list(waiting[0])))
                pipe.flush()
                busy[number] = waiting.pop(0)

    def _dead(self, number: int, batch: Sequence[Job], waiting: list[Sequence[Job]]) -> Sequence[Job]:
        """Note the failure of the run over which a process died; returns the jobs that are over by that."""
        process = self.processes[number]
        code = process.wait()
        _close(process)
        log = self.folder / f"worker-{number}.log"
        if number not in self.ready:
            raise ConfigError(f"parallel: process {number} cannot start (it ended with code {code}); see {log}")
        asked = next((one for one in SIGNALS if code in (-one, 128 + one)), None)
        if asked is not None:
            raise KeyboardInterrupt(f"process {number} got {asked.name}")
        if len(batch) > 1:
            waiting[:0] = [[job] for job in batch if not made(job.place).is_over]
            return [job for job in batch if made(job.place).is_over]
        note_death([job.place for job in batch], code, f"process {number} of --parallel", str(log))
        return batch

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Ask the processes to end, and end those that do not."""
        for process in self.processes:
            assert process.stdin is not None
            with suppress(BrokenPipeError):  # it has died
                process.stdin.close()
        for process in self.processes:
            try:
                process.wait(GRACE_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            _close(process)


def _close(process: "subprocess.Popen[bytes]") -> None:
    for pipe in (process.stdin, process.stdout):
        assert pipe is not None
        with suppress(BrokenPipeError):
            pipe.close()


def note_death(places: Sequence[Path], code: int, who: str, log: str) -> None:
    """Note that the process which made the run in each of ``places`` died with an exit code, unless the run is over."""
    how = f"with code {code}"
    if code < 0:
        name = signal.Signals(-code).name if -code in set(signal.Signals) else f"signal {-code}"
        how = f"by {name}" + (", as where no memory is left" if name == "SIGKILL" else "")
    for place in places:
        if not made(place).is_over:
            failed(place, RoundFailed(f"{who} ended {how}; see {log}"))


def check_sendable(jobs: Sequence[Job]) -> None:
    """Raise ConfigError for objects that other processes cannot get."""
    for job in jobs:
        for kind in PACKAGES:
            choice = getattr(job.config, kind)
            if choice.is_object or choice.name.startswith("__main__:"):
                what = f"{kind}.name = {choice.name!r}: an object from Python, which other processes cannot get"
                raise ConfigError(f"{what}; give package.module:Name, or leave parallel out")
