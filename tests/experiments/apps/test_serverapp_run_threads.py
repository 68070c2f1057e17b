"""Threads of an app lose nothing, and an event says that their order may differ; two apps at once are refused."""

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
