"""What goes wrong on Ray's workers: workers that die, clients that fail, memory that runs out."""

import contextlib
import os
import signal
import sys
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch

from fl_sim import Callback, RoundFailed, Run, tree
from fl_sim.engines.results import BlockResult
from fl_sim.executors.ray import ray_workers
from fl_sim.learning.loss import Batch, Loss
from fl_sim.learning.rule import Metrics
from fl_sim.learning.settings import Local
from fl_sim.tree import Tree
from strategies.fedavg import FedAvg
from tests.fl_sim.executors.ray.ray_runs import RAY, inline, on_ray, table

pytestmark = [pytest.mark.slow, pytest.mark.ray, pytest.mark.usefixtures("ray_workers")]
CULPRIT = 5


def _client(batches: list[Batch]) -> int:
    return int(batches[0].data["x"][0, 0])


@dataclass
class Deadly(FedAvg):
    """Kills the worker that trains client CULPRIT, as the kernel does without memory, ``times`` times; files count."""

    folder: str = ""
    times: int = 1

    def local_update(
        self, model: Tree, state: Tree, batches: Mapping[str, Iterable[Batch]], loss: Loss, local_: Local
    ) -> tuple[Tree, Tree, Metrics]:
        listed = list(batches["train"])
        if _client(listed) == CULPRIT:
            for number in range(self.times):
                with contextlib.suppress(FileExistsError):
                    (Path(self.folder) / f"death-{number}").touch(exist_ok=False)
                    time.sleep(0.5)  # until the result of the block before has left this worker
                    os.kill(os.getpid(), signal.SIGKILL)
        return super().local_update(model, state, {"train": listed}, loss, local_)


class Kill(Callback):
    """Kills a worker from outside, while it computes, after the first block of round 2."""

    def __init__(self) -> None:
        self.killed: list[int] = []

    def on_block(self, run: Run, result: BlockResult) -> None:
        workers = ray_workers._workers
        if run.round == 2 and not self.killed and workers is not None:
            self.killed = [handle.facts["pid"] for handle in workers.handles.values() if handle.ready][:1]
            os.kill(self.killed[0], signal.SIGKILL)


@dataclass
class Slow(FedAvg):
    """FedAvg whose clients take 20 ms longer."""

    def local_update(self, *args: Any) -> Any:
        time.sleep(0.02)
        return super().local_update(*args)


def test_a_worker_that_is_killed_changes_no_bit_and_is_logged(tmp_path: Path) -> None:
    kill = Kill()
    on_workers = on_ray(tmp_path, Slow(), callbacks=[kill])
    assert on_workers.summary["digest"] == inline(tmp_path).summary["digest"] and kill.killed
    [event] = on_workers.log.events[on_workers.log.events["event"] == "worker_lost"].to_dict("records")
    assert (event["round"], event["attempt"]) == (2, 1)
    assert event["block"] >= 0 and "/" in event["node"] and event["reason"]
    facts = on_workers.summary["workers"]
    assert facts["restarts"] == 1 and facts["retries"] >= 1 and on_workers.summary["clients_failed"] == 0


def test_a_block_may_kill_two_workers(tmp_path: Path) -> None:
    on_workers = on_ray(tmp_path, Deadly(folder=str(tmp_path), times=2), rounds=1)
    assert on_workers.summary["digest"] == inline(tmp_path, rounds=1).summary["digest"]
    lost = on_workers.log.events.query("event == 'worker_lost'")["attempt"].tolist()
    assert lost == [1, 2] and on_workers.summary["workers"]["restarts"] == 2


def test_a_block_that_kills_three_workers_fails_the_run_by_its_clients(tmp_path: Path) -> None:
    with pytest.raises(
        RoundFailed,
        match=rf"train, block \d \(clients .*\b{CULPRIT}\b.*\): 3 workers died over it, the last one because",
    ):
        on_ray(tmp_path, Deadly(folder=str(tmp_path), times=3), rounds=1)


@dataclass
class Failing(FedAvg):
    """Client CULPRIT raises, or its model is NaN."""

    way: str = "raise"

    def local_update(
        self, model: Tree, state: Tree, batches: Mapping[str, Iterable[Batch]], loss: Loss, local_: Local
    ) -> tuple[Tree, Tree, Metrics]:
        listed = list(batches["train"])
        culprit = _client(listed) == CULPRIT
        if culprit and self.way == "raise":
            raise RuntimeError("disk full")
        new, state, metrics = super().local_update(model, state, {"train": listed}, loss, local_)
        return {k: x * torch.nan if culprit else x for k, x in new.items()}, state, metrics


@pytest.mark.parametrize("way", ["raise", "nan"])
def test_a_failing_client_is_logged_as_in_one_process(tmp_path: Path, way: str) -> None:
    plain, on_workers = (go(tmp_path, Failing(way=way), failures="tolerate:0.5") for go in (inline, on_ray))
    assert table(on_workers.log.rounds) == table(plain.log.rounds)
    assert table(on_workers.log.clients) == table(plain.log.clients)
    assert table(on_workers.log.events) == table(plain.log.events) and len(table(plain.log.events)) == 3
    reasons = " ".join(on_workers.log.events["reason"].dropna())
    assert {"raise": "disk full", "nan": "NaN or infinity in"}[way] in reasons
    with pytest.raises(RoundFailed, match=f"round 1, client {CULPRIT}, train"):
        on_ray(tmp_path, Failing(way=way))


@dataclass
class Exiting(FedAvg):
    """A client calls sys.exit."""

    def local_update(self, *args: Any) -> Any:
        sys.exit(3)


def test_a_client_that_exits_has_failed_and_not_its_worker(tmp_path: Path) -> None:
    with pytest.raises(RoundFailed, match=r"(?s)client \d+, train: .*SystemExit: 3"):
        on_ray(tmp_path, Exiting())
    assert on_ray(tmp_path, rounds=1).summary["workers"]["restarts"] == 0


@dataclass
class Hungry(FedAvg):
    """FedAvg whose clients run out of memory when more than 2 run at once."""

    def local_update(
        self, model: Tree, state: Tree, batches: Mapping[str, Iterable[Batch]], loss: Loss, local_: Local
    ) -> tuple[Tree, Tree, Metrics]:
        listed = list(batches["train"])
        index = listed[0].data["y"]
        if torch._C._functorch.is_batchedtensor(index) and torch._C._functorch.get_unwrapped(index).shape[0] > 2:
            raise torch.OutOfMemoryError("out of memory")
        return super().local_update(model, state, {"train": listed}, loss, local_)


def test_a_chunk_halved_in_a_worker_is_halved_for_all_and_logged_once(tmp_path: Path) -> None:
    on_workers = on_ray(tmp_path, Hungry(), ray={**RAY, "engine": "vmap"}, block_size=6, dtype="float64")
    assert on_workers.log.config["chunk"] == 1 and on_workers.summary["bits_changed"] is True
    [event] = on_workers.log.events[on_workers.log.events["event"] == "out_of_memory"].to_dict("records")
    assert (event["chunk"], event["before"], event["round"]) == (1, 0, 1)
    again = on_ray(tmp_path, Hungry(), ray={**RAY, "engine": "vmap"}, block_size=6, dtype="float64", chunk=1)
    assert float(tree.norm(tree.sub(again.model, on_workers.model))) < 1e-9 and again.summary["bits_changed"] is False


def test_a_worker_that_cannot_start_is_an_error_with_its_requirements(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ray_workers, "START_TIMEOUT_S", 2.0)
    with pytest.raises(
        RoundFailed, match=r"ray.*each needs 1 CPUs and 1 GPUs \(ray.num_cpus, ray.num_gpus\), there are"
    ):
        on_ray(tmp_path, ray={**RAY, "num_gpus": 1.0})


@dataclass
class Hanging(FedAvg):
    """Client CULPRIT never ends."""

    def local_update(
        self, model: Tree, state: Tree, batches: Mapping[str, Iterable[Batch]], loss: Loss, local_: Local
    ) -> tuple[Tree, Tree, Metrics]:
        listed = list(batches["train"])
        if _client(listed) == CULPRIT:
            time.sleep(1000)
        return super().local_update(model, state, {"train": listed}, loss, local_)


def test_a_client_that_hangs_is_ended_with_its_worker(tmp_path: Path) -> None:
    """Its block's worker is ended, then the one that tries the client alone; the others train as if it had raised."""
    settings = {"failures": "tolerate:0.5", "rounds": 1}
    plain, ended = inline(tmp_path, Failing(), **settings), on_ray(tmp_path, Hanging(), client_timeout=2.0, **settings)
    failed = ended.log.clients.query("status == 'failed'")
    assert failed["client"].tolist() == [CULPRIT] and "no result within 2 s" in failed["reason"].item()
    assert ended.log.events["event"].tolist().count("client_timeout") == 2 and ended.summary["bits_changed"]
    for name, value in plain.model.items():
        torch.testing.assert_close(ended.model[name], value)
