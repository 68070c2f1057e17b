"""Asynchronous runs are exact: equal to the naive loop, to sequential SGD, to FedAvg where these are the same thing."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
import torch

from fl_sim import Batch, Local, Loss, RoundFailed, RoundLog, tree
from fl_sim.errors import ConfigError
from fl_sim.local import Metrics
from fl_sim.population.devices import Devices, Drawn
from fl_sim.rounds.asynchronous import async_driver, run_async, schedule
from fl_sim.rounds.driver import run_rounds
from fl_sim.tree import Tree
from fl_sim.wire import records
from strategies.base.asynchronous import Arrived
from strategies.fedasync import FedAsync
from strategies.fedavg import FedAvg
from strategies.fedbuff import FedBuff
from tests.fl_sim.rounds.asynchronous.small_async_federation import (
    CLIENTS,
    SETTINGS,
    federation,
    grid_of,
    model_of,
    naive,
    run,
    trained,
)


def close(a: Tree, b: Tree, most: float) -> None:
    """Every number of two models differs by at most ``most``."""
    assert max(float((a[k] - b[k]).abs().max()) for k in a) <= most


def equal(clients: np.ndarray, device: np.ndarray, launch: np.ndarray) -> Drawn:
    """Devices that are all alike."""
    return Drawn(np.ones(len(clients)), np.zeros(len(clients), np.int64))


EQUAL = Devices(equal, 1)


@pytest.mark.parametrize("engine", ["loop", "vmap"])
def test_fedasync_is_the_naive_loop(engine: str) -> None:
    """Rates by version, a proximal term, staleness up to 3; clients of a wave start from several models."""
    strategy = FedAsync(alpha=0.7, staleness="polynomial", rho=0.3)
    result = run(strategy, 9, 4, engine, settings={"local.lr_schedule": "step"})

    def step(model: Tree, replies: list[tuple[Tree, Tree, int]]) -> Tree:
        [(_, new, d)] = replies
        weight = 0.7 * (1 + d) ** -0.5
        return {k: (1 - weight) * model[k] + weight * new[k] for k in model}

    rates = [*[0.2] * 4, *[0.02] * 2, *[0.002] * 4]  # from a half, from three quarters of 8 intervals
    expected, late = naive(9, 4, 1, step, lr=lambda version: rates[version], rho=0.3)
    close(model_of(result), expected, 1e-9)
    assert [[row["staleness_max"]] for row in result.rows[1:]] == late and max(late) > [1]


@pytest.mark.parametrize("engine", ["loop", "vmap"])
def test_fedbuff_is_the_naive_loop(engine: str) -> None:
    """Momentum on the server; a fast client may be twice in one buffer, with different batches."""
    result = run(FedBuff(buffer=3, beta=0.5), 6, 6, engine)
    momentum: dict[str, torch.Tensor] = {}

    def step(model: Tree, replies: list[tuple[Tree, Tree, int]]) -> Tree:
        for k in model:
            mean = sum((new[k] - begin[k]) / (1 + d) ** 0.5 for begin, new, d in replies) / 3
            momentum[k] = 0.5 * momentum.get(k, torch.zeros(())) + mean
        return {k: model[k] + momentum[k] for k in model}

    expected, late = naive(6, 6, 3, step)
    close(model_of(result), expected, 1e-9)
    assert [row["staleness_mean"] for row in result.rows[1:]] == [pytest.approx(sum(d) / 3) for d in late]


class Noted(FedAsync):
    """FedAsync that notes whose replies it gets."""

    def apply(self, model: Tree, arrived: Sequence[Arrived], server_round: int) -> Tree:
        WHO.extend(one.client for one in arrived)
        return super().apply(model, arrived, server_round)


WHO: list[int] = []


def test_one_client_in_flight_is_sequential_sgd_bit_for_bit() -> None:
    WHO.clear()
    result = run(Noted(alpha=1.0, staleness="constant"), 4, 1)
    model = federation()[0].initial()
    for number, client in enumerate(WHO):
        model = trained(model, client, number + 1, 0.2)
    assert tree.digest(model_of(result)) == tree.digest(model)
    assert [row["staleness_max"] for row in result.rows[1:]] == [0, 0, 0, 0]


def test_fedbuff_of_all_equal_clients_is_uniform_fedavg() -> None:
    """Equal devices, and equal steps because 5 or 6 samples make 2 batches of 3: all are done at one instant."""
    result = run(FedBuff(buffer=CLIENTS), 3, CLIENTS, devices=EQUAL)
    strategy = FedAvg()
    strategy.weighting, strategy.seed = "uniform", 5
    start = records.encode(federation()[0].initial())
    config = records.config({"rounds": 3, **SETTINGS})
    rounds = run_rounds(strategy, grid_of(strategy, devices=EQUAL), start, 3, train_config=config, seed=5)
    close(model_of(result), model_of(rounds), 1e-12)
    assert [row["virtual_time"] for row in result.rows] == [row["virtual_time"] for row in rounds.rows]


def test_replies_of_one_instant_are_applied_by_client_before_anybody_starts() -> None:
    """Equal devices: of 4 in flight, the replies of an instant are 0, 1, 2 and 3 steps late."""
    result = run(FedAsync(), 8, 4, devices=EQUAL)
    assert [row["staleness_max"] for row in result.rows[1:]] == [0, 1, 2, 3, 0, 1, 2, 3]
    assert [row["virtual_time"] for row in result.rows] == [0.0, *[4.0] * 4, *[8.0] * 4]


def test_bytes_of_replies_are_those_of_their_code() -> None:
    """Two replies a step, each of 3 x 2 weights and 2 biases: 8 bytes and two scales of 4; in float64 64 bytes."""
    result = run(FedBuff(buffer=2), 2, 4, settings={"codec": "int8"})
    assert [(row["bytes_up"], row["bytes_up_raw"]) for row in result.rows[1:]] == [(32, 128)] * 2


def test_only_the_models_of_clients_in_flight_are_kept() -> None:
    strategy = FedAsync()
    grid = grid_of(strategy)
    config = records.config({"rounds": 12, **SETTINGS})
    run_async(strategy, grid, records.encode(federation()[0].initial()), 12, train_config=config, concurrency=4)
    assert grid.waves is not None and len(grid.waves.waiting) == 3
    assert all(len(w.message.content) == (0 if w.answer else 2) for w in grid.waves.waiting.values())


def test_what_cannot_run_asynchronously_is_refused_by_name() -> None:
    for wrong in (9, -1):
        with pytest.raises(ConfigError, match=f"concurrency = {wrong}: 8 clients train; choose 1 to 8"):
            run(FedAsync(), 1, wrong)
    with pytest.raises(ConfigError, match="FedAvg is no asynchronous strategy"):
        run(FedAvg(), 1, 2)
    with pytest.raises(ConfigError, match="evaluate_virtual = 1e-10: virtual time is counted in nanoseconds"):
        run(FedAsync(), 1, 2, evaluate_virtual=1e-10)


def test_devices_that_vanish_are_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    devices = Devices(equal, per="launch", vanish=0.5)
    result = run(FedAsync(), 10, 4, devices=devices)
    lost = sum(row["dropped"] for row in result.rows[1:])
    assert lost > 2 and all(row["completed"] == 1 for row in result.rows[1:])
    wasted = [row["wasted_examples"] for row in result.rows[1:]]
    assert 0 < sum(wasted) < 12 * lost and all(row["dropped"] for row in result.rows[1:] if row["wasted_examples"])
    assert {row["device_idle"] for row in result.rows[1:]} <= {0.0, None}  # who vanishes is replaced at once
    monkeypatch.setattr(schedule, "MOST_LOST", -180)  # beside a hundred for each of the two in flight
    with pytest.raises(RoundFailed, match="round 1: the last 21 clients gave no reply; its device vanished"):
        run(FedAsync(), 1, 2, devices=Devices(equal, 1, vanish=1.0))


class Stumbles(FedAsync):
    """FedAsync whose clients fail with some batches, on the loop."""

    def local_update(
        self, model: Tree, state: Tree, batches: Mapping[str, Iterable[Batch]], loss: Loss, local: Local
    ) -> tuple[Tree, Tree, Metrics]:
        steps = list(batches["train"])
        if float(steps[0].data["x"].sum()) > self.b:
            raise ValueError("it stumbles")
        return super().local_update(model, state, {"train": steps}, loss, local)


def test_a_client_that_fails_follows_the_failure_policy() -> None:
    """A step waits for another reply; the share is of all answers so far, and at least of those in flight."""
    result = run(Stumbles(b=1), 12, 4, failures="tolerate:0.5")
    assert sum(row["failed"] for row in result.rows[1:]) > 0 and all(row["completed"] == 1 for row in result.rows[1:])
    wasted = [(row["failed"], row["wasted_examples"]) for row in result.rows[1:]]
    assert all(10 * failed <= examples <= 12 * failed for failed, examples in wasted)  # two passes of 5 or 6 samples
    with pytest.raises(RoundFailed, match=r"(?s)client \d+, train.*it stumbles"):
        run(Stumbles(b=1), 12, 4)
    with pytest.raises(RoundFailed, match="round 1: the last 4 clients all failed"):
        run(Stumbles(b=-99), 12, 4, failures="tolerate:1")
    with pytest.raises(RoundFailed, match=r"(?s)\(in this run \d+ of \d+ answers failed, \d+ allowed\): .*it stumbles"):
        run(Stumbles(b=-99), 12, 4, failures="tolerate:0.5")


def test_a_scheduled_evaluation_is_also_that_of_the_virtual_seconds() -> None:
    """Steps of 4 virtual seconds: 8 and 16 are at steps 2 and 4, which the schedule names too; step 3 has none."""
    seen: list[int] = []

    def evaluate(server_round: int, arrays: object) -> None:
        seen.append(server_round)

    run(FedAsync(), 5, 1, devices=EQUAL, evaluate_fn=evaluate, evaluate_every=2, evaluate_virtual=8.0)
    assert seen == [0, 2, 4, 5]


class Looks(FedAsync):
    """FedAsync whose clients call a function when they train."""

    look: ClassVar[Callable[[], None]]

    def local_update(
        self, model: Tree, state: Tree, batches: Mapping[str, Iterable[Batch]], loss: Loss, local: Local
    ) -> tuple[Tree, Tree, Metrics]:
        Looks.look()
        return super().local_update(model, state, batches, loss, local)


def test_lines_that_wait_are_written_before_clients_train_and_before_an_evaluation(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Line of step 0 and so on; that of the last step may still wait for the thread that computes its digest."""
    monkeypatch.setattr(async_driver, "LINES_WAIT", 1e9)
    log = RoundLog.create(tmp_path, "waits", "")
    trained, evaluated = list[int](), list[int]()

    def written() -> int:
        return len((log.path / "rounds.jsonl").read_text().splitlines())

    def evaluate(server_round: int, arrays: object) -> None:
        evaluated.append(written())

    monkeypatch.setattr(Looks, "look", staticmethod(lambda: trained.append(written())), raising=False)
    run(Looks(), 6, 1, settings={"strategy": "looks"}, log=log)
    assert len(trained) == 6 and all(lines >= step for step, lines in enumerate(trained))
    log = RoundLog.create(tmp_path, "waits-for-evaluations", "")
    run(Looks(), 6, 6, settings={"strategy": "looks"}, log=log, evaluate_fn=evaluate, evaluate_every=1)
    assert len(evaluated) == 7 and all(lines >= step - 1 for step, lines in enumerate(evaluated))
