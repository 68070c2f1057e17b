"""Threads of an app lose nothing, and an event says that their order may differ; two apps at once are refused."""

import builtins
from pathlib import Path

import pytest

from experiments.apps import serverapp_run
from tests.experiments.apps.small_apps import CLIENT, Try, events, exchanging

STRATEGIES = """
sums = []
def work(): sums.append(averaging().start(grid, ArrayRecord([np.zeros(2)]), 2).arrays.to_numpy_ndarrays()[0][0])
threads = [threading.Thread(target=work) for _ in range(2)]
[t.start() for t in threads]
[t.join() for t in threads]
said([float(s) for s in sums])
"""


def test_two_strategies_in_two_threads_run_one_after_the_other(attempt: Try) -> None:
    code, _, log, heard = attempt(exchanging(STRATEGIES))
    # a round adds the mean of n + 1 with weights n + 1: (1 + 4 + 9) / 6
    assert (code, heard) == (0, f"([{2 * (14 / 6)!r}, {2 * (14 / 6)!r}],)")
    assert log.rounds["round"].tolist() == [0, 1, 2, 3, 4, 5]  # the second one's round 0 is line 3
    assert events(log).count("not_repeatable") == 1


def test_a_second_app_in_the_same_process_is_refused(attempt: Try) -> None:
    body = "from pathlib import Path\nfrom experiments.run import main as again\n"
    body += "said(again(['--app', str(Path(__file__).parent), '--quiet']))"
    code, _, log, heard = attempt(exchanging(body), CLIENT)
    assert (code, heard) == (0, "(2,)") and len(log.rounds) == 0
    assert attempt(exchanging("said(1)"))[0] == 0  # the next one is not


LEFT = """
def work():
    for _ in range(2):
        got.append(len(grid.send_and_receive(messages(grid))))
        time.sleep(0.02)
    said(got)
    forever.wait()
    try:
        grid.send_and_receive(messages(grid))
    except Exception as error:
        said(str(error))
got, forever = [], threading.Event()
import builtins
builtins.forever = forever, threading.Thread(target=work)
builtins.forever[1].start()
"""


def test_a_thread_that_outlives_the_main_function_loses_nothing(
    attempt: Try, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(serverapp_run, "GRACE_S", 0.1)
    code, _, log, heard = attempt(exchanging(LEFT))
    assert (code, heard, len(log.rounds)) == (0, "([3, 3],)", 3)
    assert "go on after its main function has returned" in log.events["reason"].dropna().iloc[-1]
    forever, thread = vars(builtins).pop("forever")
    forever.set()
    thread.join()
    assert "its run has ended" in (tmp_path / "said.txt").read_text()
