"""Digests where a line gets one: numbers, other lines and the run's end do not depend on how many there are."""

import json
from pathlib import Path
from typing import Any

import pytest

from fl_sim import Callback, RoundLog, Run, load, tree
from tests.fl_sim.rounds.test_callbacks import go


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


class Breaks(Callback):
    """Breaks a run off in round 3, in one of its hooks; keeps its rows."""

    def __init__(self, hook: str, writes: bool) -> None:
        self.hook, self.writes, self.rows = hook, writes, list[dict[str, Any]]()

    def on_run_start(self, run: Run) -> None:
        self.rows = run.rows

    def on_round_start(self, run: Run) -> None:
        self.reached("on_round_start", run)

    def on_round_end(self, run: Run, row: dict[str, Any]) -> None:
        self.reached("on_round_end", run)

    def reached(self, hook: str, run: Run) -> None:
        if run.round == 3 and hook == self.hook:
            if self.writes:
                next(iter(run.model.values())).add_(1)
            raise KeyboardInterrupt


@pytest.mark.parametrize("small", [True, False])
@pytest.mark.parametrize("hook", ["on_round_start", "on_round_end"])
@pytest.mark.parametrize("writes", [False, True])
def test_a_run_that_breaks_off_knows_the_digest_of_its_last_round(
    hook: str, writes: bool, small: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also once the round under way has a new model; not where a callback wrote into the last round's own."""
    monkeypatch.setattr("fl_sim.rounds.digests.SMALL_BYTES", 2**18 if small else 0)
    every = [row["digest"] for row in go(rounds=2, evaluate_fn=None).rows]
    breaks = Breaks(hook, writes)
    with RoundLog.create(tmp_path, "broken", "") as log, pytest.raises(KeyboardInterrupt):
        go(breaks, rounds=9, digest_every=9, evaluate_fn=None, log=log)
    lost = writes and hook == "on_round_start"
    assert [row["digest"] for row in breaks.rows] == [every[0], None, None if lost else every[2]]
    if hook == "on_round_start" and not writes:
        assert tree.digest(load(log.path).model()) == every[2]
