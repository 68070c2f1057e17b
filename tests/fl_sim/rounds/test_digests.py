"""Digests where a line gets one: numbers, other lines and the run's end do not depend on how many there are."""

import json
from pathlib import Path
from typing import Any

import pytest

from fl_sim import Callback, RoundLog, Run, load, tree
from tests.fl_sim.rounds.test_callbacks import Recorder, go


class Seen(Callback):
    """Keeps the digests that ``on_round_end`` finds, and stops after a round."""

    def __init__(self, stop: int = -1) -> None:
        self.digests: list[object] = []
        self.at = stop

    def on_round_end(self, run: Run, row: dict[str, Any]) -> None:
        self.digests.append(row["digest"])
        if run.round == self.at:
            run.stop("enough")


@pytest.mark.parametrize("small", [True, False])
def test_lines_have_digests_where_they_are_due_and_the_numbers_are_the_same(
    small: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fl_sim.rounds.digests.SMALL_BYTES", 2**18 if small else 0)
    every = [row["digest"] for row in go(rounds=7, evaluate_fn=None).rows]
    seen, stopped = Seen(), Seen(stop=4)
    with RoundLog.create(tmp_path, "few", "") as log:
        rows = go(seen, rounds=7, digest_every=3, evaluate_fn=None, log=log).rows
    expected = [every[0], None, None, every[3], None, None, every[6], every[7]]
    assert [row["digest"] for row in rows] == seen.digests == expected
    lines = [json.loads(line)["digest"] for line in (log.path / "rounds.jsonl").read_text().splitlines()]
    assert lines == expected and load(log.path).model()
    rows = go(stopped, rounds=7, digest_every=3, evaluate_fn=None).rows
    assert [row["digest"] for row in rows] == [every[0], None, None, every[3], every[4]]  # the last one has it
    assert [row["digest"] for row in go(rounds=3, digest_every=9).rows] == [every[0], None, every[2], every[3]]


def test_a_run_that_breaks_off_knows_the_digest_of_its_last_round(tmp_path: Path) -> None:
    every = [row["digest"] for row in go(rounds=2, evaluate_fn=None).rows]
    kept: list[dict[str, Any]] = []

    class Keeps(Recorder):
        def on_run_start(self, run: Run) -> None:
            nonlocal kept
            kept = run.rows

        def on_round_end(self, run: Run, row: dict[str, Any]) -> None:
            pass

    with RoundLog.create(tmp_path, "broken", "") as log, pytest.raises(ZeroDivisionError):
        go(Keeps("on_round_start", at=3), rounds=9, digest_every=9, evaluate_fn=None, log=log)
    assert [row["digest"] for row in kept] == [every[0], None, every[2]]
    assert tree.digest(load(log.path).model()) == every[2]
