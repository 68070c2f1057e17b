"""Counting replies as they arrive: rows are written to the log at once, and the share of padded work is computed."""

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from clients.app import make_app
from experiments.check.world import SIZES, TRAINING, UNSEEN, app_of, world
from fl_sim import Callback, Partition, RoundFailed, RoundLog, Run, SimulationGrid, from_arrays, load, rng, run_rounds
from fl_sim.engines.results import BlockResult
from fl_sim.learning.loss import Loss
from fl_sim.rounds.callbacks import RunResult
from fl_sim.wire import records
from strategies.fedavg import FedAvg

HOLDS = [8, 8, 8, 8, 1, 1, 1, 1]
"""Samples of each client of the skewed federation."""


@pytest.fixture
def log(tmp_path: Path) -> RoundLog:
    return RoundLog.create(tmp_path, "test", "seed = 0\n")


def skewed(engine: str, block_size: int, order: list[int], log: RoundLog | None = None, **options: Any) -> RunResult:
    """One round of a linear model; each client takes one batch of all its samples."""
    sizes = [HOLDS[c] for c in order]
    x, y = np.arange(2.0 * sum(sizes)).reshape(-1, 2) / 10, np.arange(sum(sizes)) % 2
    with rng.keyed_globals(0):
        loss = Loss(nn.Linear(2, 2), from_arrays(x, y, x_test=x, y_test=y), torch.float64)
    app = make_app(loss, Partition.of(np.split(np.arange(len(y)), np.cumsum(sizes)[:-1])))
    grid = SimulationGrid(app, len(sizes), engine=engine, block_size=block_size)
    settings = records.config({"local.batch_size": 2, "local.lr": 0.1})
    return run_rounds(FedAvg(), grid, records.encode(loss.initial()), 1, train_config=settings, log=log, **options)


@pytest.mark.parametrize("order", [[0, 1, 2, 3, 4, 5, 6, 7], [0, 4, 1, 5, 2, 6, 3, 7]])
def test_clients_of_like_length_share_a_block_so_that_little_is_padded(order: list[int], log: RoundLog) -> None:
    """The share of padding, worked out for batches of 2, for any order of the messages.

    Clients of 8 samples take 4 full steps, those of 1 sample one step of a batch of 1.

    Two blocks of four: 4 x 4 x 2 places for 32 samples, 4 x 1 x 1 places for 4 samples: nothing is padded. One block of
    eight: 8 x 4 x 2 = 64 places for 36 samples.
    """
    assert skewed("vmap", 4, order, log).rows[1]["padded_share"] == 0
    assert load(log.path).rounds["padded_share"].tolist()[1] == 0
    assert skewed("vmap", 8, order).rows[1]["padded_share"] == 1 - 36 / 64
    # three blocks, none of more than three: (8, 8), (8, 8, 1), (1, 1, 1): 16 of 16, 17 of 3 x 4 x 2, 3 of 3
    assert skewed("vmap", 3, order).rows[1]["padded_share"] == pytest.approx(1 - 36 / 43)


def test_the_loop_pads_nothing_and_reports_no_share() -> None:
    assert skewed("loop", 4, list(range(8))).rows[1]["padded_share"] is None


class Reading(Callback):
    """Counts the lines of clients.jsonl whenever a block is done."""

    def __init__(self, log: RoundLog) -> None:
        self.file, self.lines = log.path / "clients.jsonl", []  # type: Path, list[int]

    def on_block(self, run: Run, result: BlockResult) -> None:
        self.lines.append(len(self.file.read_bytes().splitlines()))


def test_rows_reach_the_log_while_the_round_goes_on(log: RoundLog, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fl_sim.grids.exchange.FLUSH", 3)
    reading = Reading(log)
    result = skewed("vmap", 2, list(range(8)), log, callbacks=[reading])
    assert reading.lines == [0, 0, 3, 6]  # after 0, 2, 4, 6 replies: whole threes
    rows = [json.loads(line) for line in reading.file.read_bytes().splitlines()]
    assert [row["client"] for row in rows] == list(range(8)) and {row["status"] for row in rows} == {"completed"}
    assert (result.rows[1]["examples"], result.rows[1]["steps"]) == (36, 20)


def test_the_log_does_not_depend_on_how_often_rows_are_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = []
    for flush in (1, 10_000):
        monkeypatch.setattr("fl_sim.grids.exchange.FLUSH", flush)
        log = RoundLog.create(tmp_path, f"flush{flush}", "seed = 0\n")
        grid = SimulationGrid(app_of(FedAvg()), len(SIZES), holdout_clients=UNSEEN, block_size=4)
        run_rounds(
            FedAvg(), grid, records.encode(world()[0].initial()), 2, train_config=records.config(TRAINING), log=log
        )
        files.append(re.sub(rb',"seconds":[^,}]+', b"", (log.path / "clients.jsonl").read_bytes()))
    assert files[0] == files[1] and files[0].count(b'"dropped"') > 0


@pytest.mark.parametrize("flush", [1, 10_000])
def test_a_round_that_fails_has_written_the_clients_that_answered(
    log: RoundLog, flush: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fl_sim.grids.exchange.FLUSH", flush)

    class Stopping(Callback):
        def on_block(self, run: Run, result: BlockResult) -> None:
            if result.plan.number == 2:
                result.clients[0].reason = "unplugged"

    with pytest.raises(RoundFailed, match="client 4, train: unplugged"):
        skewed("vmap", 2, list(range(8)), log, callbacks=[Stopping()])
    read = load(log.path)
    assert read.clients["client"].tolist() == [0, 1, 2, 3, 4] and read.clients["status"].tolist() == [
        "completed"
    ] * 4 + ["failed"]
    assert read.events["event"].tolist() == ["client_failed", "run_failed"]
