"""The exit code of a command: 128 plus the signal's number after an interruption, 1 where its output is lost."""

import errno
import io
import os
import signal
import sys
from collections.abc import Callable, Iterator

import pytest

from experiments.command_ends import SIGNALS, Arguments, ended, is_full


@pytest.fixture(autouse=True)
def _handlers() -> Iterator[None]:
    """The handlers of the tests' own process, put back."""
    before = {number: signal.getsignal(number) for number in SIGNALS}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.parametrize("name, code", [("SIGINT", 130), ("SIGTERM", 143), ("SIGHUP", 129)])
def test_a_signal_ends_a_command_without_a_traceback(name: str, code: int, capsys: pytest.CaptureFixture[str]) -> None:
    number = getattr(signal, name)
    signal.signal(number, signal.SIG_DFL)
    assert ended(lambda: os.kill(os.getpid(), number) or 0) == code
    assert capsys.readouterr().err == "interrupted\n"


def test_a_signal_that_is_ignored_stays_ignored() -> None:
    """``nohup`` starts a command so that it outlives its terminal."""
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    assert ended(lambda: os.kill(os.getpid(), signal.SIGHUP) or 0) == 0


class Full(io.StringIO):
    """Standard output on a disk without room."""

    def __init__(self, number: int) -> None:
        super().__init__()
        self.number = number

    def flush(self) -> None:
        raise OSError(self.number, os.strerror(self.number))


@pytest.mark.parametrize("number, code", [(errno.ENOSPC, 1), (errno.EPIPE, 0)], ids=["full", "no reader"])
def test_output_that_is_lost(number: int, code: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdout", Full(number))
    assert ended(lambda: 0) == code
    assert ended(lambda: 3) == 3


def test_os_exit_does_not_end_a_command() -> None:
    def leaves() -> int:
        os._exit(0)

    with pytest.raises(RuntimeError, match=r"os._exit\(0\) was called"):
        ended(leaves)


def caused(error: OSError) -> ValueError:
    wrapped = ValueError("no folder")
    wrapped.__cause__ = error
    return wrapped


@pytest.mark.parametrize("wrap", [lambda error: error, caused])
def test_a_full_disk_is_seen_behind_another_error(wrap: Callable[[OSError], Exception]) -> None:
    assert is_full(wrap(OSError(errno.ENOSPC, "full"))) and not is_full(wrap(OSError(errno.ENOENT, "missing")))


@pytest.mark.parametrize(
    "words, said",
    [
        (["runs/a", "--tilte", "x"], "unrecognized arguments: --tilte x (did you mean '--title'?); usage: report [-h]"),
        ([], "the following arguments are required: RUN; usage: report [-h] [--title TITLE] RUN"),
    ],
)
def test_wrong_arguments_are_one_line_with_the_form_of_a_call(
    words: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    parser = Arguments(prog="report")
    parser.add_argument("--title")
    parser.add_argument("runs", metavar="RUN")
    with pytest.raises(SystemExit) as end:
        parser.parse_args(words)
    text = capsys.readouterr().err
    assert end.value.code == 2 and text.startswith(f"error: {said}") and text.count("\n") == 1
