"""A run that was broken off goes on from a checkpoint with the same bits and lines, at any step."""

import json
from pathlib import Path
from typing import Any

import pytest

from fl_sim import Callback, RoundLog, Run, tree
from fl_sim.population.devices import Devices
from fl_sim.rounds import checkpoint
from fl_sim.rounds.asynchronous.async_driver import equal
from fl_sim.rounds.checkpoint import Checkpoints
from strategies.fedasync import FedAsync
from strategies.fedbuff import FedBuff
from tests.fl_sim.rounds.asynchronous.small_async_federation import DEVICES, model_of, run

TIMES = ("seconds", "evaluate_seconds", "pool_seconds", "rss_mb")
VANISHING = Devices(DEVICES.draw, per="launch", vanish=0.2)


class Breaks(Callback):
    """Ends a run in the middle of a server step, as Ctrl-C does."""

    def __init__(self, step: int) -> None:
        self.step = step

    def on_round_end(self, run: Run, row: dict[str, object]) -> None:
        if run.round == self.step:
            raise KeyboardInterrupt


def lines(folder: Path, table: str) -> list[dict[str, Any]]:
    """The rows of a log, without wall times."""
    rows = map(json.loads, (folder / f"{table}.jsonl").read_text().splitlines())
    return [{k: v for k, v in row.items() if k not in TIMES} for row in rows]


@pytest.mark.parametrize("step", [4, 8])
@pytest.mark.parametrize("engine", ["loop", "vmap"])
@pytest.mark.parametrize(
    "strategy, devices",
    [(FedBuff(buffer=2, beta=0.5), VANISHING), (FedAsync(rho=0.1), Devices(equal, 1))],
    ids=["fedbuff", "fedasync"],
)
def test_a_run_that_was_broken_off_goes_on_as_if_it_had_not(
    strategy: Any, devices: Devices, engine: str, step: int, tmp_path: Path
) -> None:
    """Checkpoints after steps 3 and 6, while clients are in flight, computed or not; of equal devices some are done."""

    def go(folder: str, steps: int = 9, **more: Any) -> Any:
        fresh = type(strategy)(**strategy.parameters())
        log = more.pop("log", None) or RoundLog.create(tmp_path, folder, "")
        with log:
            checkpoints = Checkpoints(log.path, 3)
            codec = "int8" if isinstance(strategy, FedBuff) else "none"
            settings = {"rounds": 9, "local.lr_schedule": "step", "codec": codec}
            how = {"devices": devices, "settings": settings, "checkpoints": checkpoints}
            return run(fresh, steps, 5, engine, log=log, **how, **more), log.path

    whole, first = go("whole")
    folder = tmp_path / "broken"
    folder.mkdir()
    with pytest.raises(KeyboardInterrupt):
        go("", log=RoundLog(folder), callbacks=[Breaks(step)])
    begin, wrong = checkpoint.latest(folder)
    assert begin is not None and not wrong and begin.round == (step - 1) // 3 * 3
    log = RoundLog.reopen(folder, begin.positions, begin.round, begin.line)
    rest, _ = go("", log=log, begin=begin)
    assert tree.digest(model_of(rest)) == tree.digest(model_of(whole))
    for table in ("rounds", "clients"):
        for a, b in zip(lines(folder, table), lines(first, table), strict=True):
            assert a.keys() == b.keys()
            assert {k: (x, b[k]) for k, x in a.items() if x != b[k]} == {}
    assert [row["round"] for row in rest.rows] == list(range(10))


def test_a_run_that_is_made_longer_is_the_longer_run(tmp_path: Path) -> None:
    with RoundLog.create(tmp_path, "short", "") as log:
        run(FedBuff(buffer=2), 3, 5, log=log, checkpoints=Checkpoints(log.path, 3))
    begin, _ = checkpoint.latest(log.path)
    assert begin is not None
    longer = run(FedBuff(buffer=2), 6, 5, begin=begin)
    assert tree.digest(model_of(longer)) == tree.digest(model_of(run(FedBuff(buffer=2), 6, 5)))
