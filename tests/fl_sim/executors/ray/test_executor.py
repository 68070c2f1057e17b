"""Ray's workers: the same bits as in one process, whatever their number, whoever dies. Two nodes: test_ray_cluster.py."""

import contextlib
import os
import signal
import sys
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from experiments.run import Outcome, run
from fl_sim import Callback, RoundFailed, Run, from_arrays, tree
from fl_sim.engines.results import BlockResult
from fl_sim.executors.ray import team
from fl_sim.executors.ray.executor import RayExecutor, dismiss
from fl_sim.executors.ray.options import Ray
from fl_sim.learning.loss import Batch, Loss
from fl_sim.learning.rule import Metrics
from fl_sim.learning.settings import Local
from fl_sim.tree import Tree
from strategies.fedavg import FedAvg

pytestmark = [pytest.mark.slow, pytest.mark.ray]
CLIENTS, CULPRIT = 12, 5
DRAW = np.random.default_rng(0)
OWNER = np.repeat(np.arange(CLIENTS), DRAW.integers(5, 30, CLIENTS))
X = np.column_stack(
    [OWNER, DRAW.normal(size=(len(OWNER), 700))]
)  # large enough for the object store; column 0 names the client
Y = (X[:, 1:] @ DRAW.normal(size=(700, 3))).argmax(1)
TASK = from_arrays(
    X.astype(np.float32), Y, clients=OWNER, x_test=np.tile(X, (8, 1)).astype(np.float32), y_test=np.tile(Y, 8)
)
SETTINGS: dict[str, Any] = {
    "task": TASK,
    "model": "mlp",
    "rounds": 3,
    "block_size": 2,
    "local": {"lr": 0.01, "epochs": 2},
}
RAY: dict[str, Any] = {"num_workers": 2, "engine": "loop"}


@pytest.fixture(scope="module", autouse=True)
def _ray() -> Iterator[None]:
    """The classes of this file cannot be imported by a worker; they travel as a notebook's do. Workers end with the file."""
    from ray import cloudpickle

    cloudpickle.register_pickle_by_value(sys.modules[__name__])
    yield
    cloudpickle.unregister_pickle_by_value(sys.modules[__name__])
    dismiss()


def on_ray(
    out: Path, strategy: FedAvg | str | None = None, callbacks: Iterable[Callback] = (), **settings: Any
) -> Outcome:
    settings = {"ray": RAY, **SETTINGS, **settings}
    return run(strategy=strategy or FedAvg(), engine="ray", out=str(out), callbacks=list(callbacks), **settings)


def inline(out: Path, strategy: FedAvg | str | None = None, **settings: Any) -> Outcome:
    return run(strategy=strategy or FedAvg(), out=str(out), **{"engine": "loop", **SETTINGS, **settings})


def table(frame: pd.DataFrame) -> list[dict[str, Any]]:
    """Rows of a log, less what depends on the clock and on the workers."""
    kept = frame[
        [c for c in frame.columns if c not in ("time", "seconds", "evaluate_seconds", "worker", "node", "device")]
    ]
    if "event" in kept:
        kept = kept[~kept["event"].isin(["start", "worker_started"])]
    return [{k: v for k, v in row.items() if v is not None and v == v} for row in kept.to_dict("records")]


# The same bits ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("engine", ["loop", "vmap"])
def test_any_number_of_workers_gives_the_bits_of_one_process(tmp_path: Path, engine: str) -> None:
    """Digests, evaluations and all clients' numbers, of 4, 1 and 2 workers and of none."""
    plain = inline(tmp_path, engine=engine)
    for workers in (4, 1, 2):
        made = on_ray(tmp_path, ray={"num_workers": workers, "engine": engine})
        assert table(made.log.rounds) == table(plain.log.rounds)
        assert table(made.log.clients) == table(plain.log.clients)
        assert table(made.log.events) == []
        facts = made.summary["workers"]
        assert (facts["num_workers"], facts["nodes"], facts["retries"], facts["restarts"]) == (workers, 1, 0, 0)
        assert 0 <= facts["idle_share"] < 1
        assert made.log.config["engine"] == "ray" and made.log.config["ray"]["engine"] == engine
        assert made.summary["engine"] == "ray"


@dataclass
class Remembering(FedAvg):
    """Each client takes a smaller part of its update the more often it was asked: its state matters to the bits."""

    def local_update(
        self, model: Tree, state: Tree, batches: Mapping[str, Iterable[Batch]], loss: Loss, local_: Local
    ) -> tuple[Tree, Tree, Metrics]:
        new, _, metrics = super().local_update(model, state, batches, loss, local_)
        times = state.get("times", torch.zeros(())) + 1
        kept = {k: model[k] + (x - model[k]) / times for k, x in new.items()}
        return kept, {"times": times, **kept}, {**metrics, "times": times.clone()}


@pytest.mark.parametrize("engine", ["loop", "vmap"])
def test_states_travel_with_their_clients_and_come_back(tmp_path: Path, engine: str) -> None:
    plain = inline(tmp_path, Remembering(), engine=engine, cohort=7)
    made = on_ray(tmp_path, Remembering(), ray={**RAY, "engine": engine}, cohort=7)
    assert table(made.log.rounds) == table(plain.log.rounds) and table(made.log.clients) == table(plain.log.clients)
    assert made.log.clients["times"].max() == 3 and made.log.clients["times"].min() == 1


def test_replies_travel_one_by_one_where_the_strategy_wants_them(tmp_path: Path) -> None:
    """A strategy of Flower's pools by itself."""
    plain, made = (go(tmp_path, "flwr.serverapp.strategy:FedAvg") for go in (inline, on_ray))
    assert table(plain.log.rounds) == table(made.log.rounds) and len(made.log.rounds) == 4


def _where_samples_lie(worker: Any) -> list[str]:
    """In the worker: what its samples' memory is mapped from."""
    lines = Path("/proc/self/maps").read_text().splitlines()
    found = []
    for key, thing in worker.things.items():
        if key.endswith("/learner"):
            address = thing[1].data["x"].data_ptr()
            spans = [(*(int(end, 16) for end in line.split()[0].split("-")), line) for line in lines]
            found += [line for start, end, line in spans if start <= address < end]
    return found


class Look(Callback):
    """Asks workers where their samples lie."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def on_round_end(self, run: Run, row: dict[str, Any]) -> None:
        import ray

        assert team._crew is not None
        for hand in team._crew.hands.values():
            self.lines += ray.get(hand.actor.__ray_call__.remote(_where_samples_lie))


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="needs Linux's /proc")
def test_samples_are_shared_by_workers_and_with_the_next_run(tmp_path: Path) -> None:
    on_ray(tmp_path, rounds=1)
    crew, look = team._crew, Look()
    assert crew is not None
    shelf, workers = {key: item[1] for key, item in crew._shelf.items()}, set(crew.hands)
    on_ray(tmp_path, rounds=1, callbacks=[look])
    assert len(look.lines) >= 4 and all("plasma" in line and line.split()[1].startswith("rw-s") for line in look.lines)
    assert crew is team._crew and set(crew.hands) == workers
    assert {key: item[1] for key, item in crew._shelf.items()} == shelf and len(shelf) == 2  # the inputs of both sets


# What goes wrong ----------------------------------------------------------------------------------------------------


def _client(batches: list[Batch]) -> int:
    return int(batches[0].data["x"][0, 0])


@dataclass
class Deadly(FedAvg):
    """The worker that trains client CULPRIT is killed, as by the kernel when memory runs out, so many times; files count."""

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
                    time.sleep(
                        0.5
                    )  # a worker that dies at once may take the block before with it, whose answer is on its way
                    os.kill(os.getpid(), signal.SIGKILL)
        return super().local_update(model, state, {"train": listed}, loss, local_)


class Kill(Callback):
    """Kills a worker from outside after the first block of round 2, while it works."""

    def __init__(self) -> None:
        self.killed: list[int] = []

    def on_block(self, run: Run, result: BlockResult) -> None:
        crew = team._crew
        if run.round == 2 and not self.killed and crew is not None:
            self.killed = [hand.facts["pid"] for hand in crew.hands.values()][:1]
            os.kill(self.killed[0], signal.SIGKILL)


@dataclass
class Slow(FedAvg):
    """FedAvg that takes a while."""

    def local_update(self, *args: Any) -> Any:
        time.sleep(0.02)
        return super().local_update(*args)


def test_a_worker_killed_at_work_changes_no_bit_and_is_in_the_log(tmp_path: Path) -> None:
    kill = Kill()
    made = on_ray(tmp_path, Slow(), callbacks=[kill])
    assert made.summary["digest"] == inline(tmp_path).summary["digest"] and kill.killed
    [event] = made.log.events[made.log.events["event"] == "worker_lost"].to_dict("records")
    assert (
        event["round"] == 2
        and event["attempt"] == 1
        and event["block"] >= 0
        and "/" in event["node"]
        and event["reason"]
    )
    facts = made.summary["workers"]
    assert facts["restarts"] == 1 and facts["retries"] >= 1 and made.summary["clients_failed"] == 0


def test_a_block_may_kill_two_workers(tmp_path: Path) -> None:
    made = on_ray(tmp_path, Deadly(folder=str(tmp_path), times=2), rounds=1)
    assert made.summary["digest"] == inline(tmp_path, rounds=1).summary["digest"]
    lost = made.log.events.query("event == 'worker_lost'")["attempt"].tolist()
    assert lost == [1, 2] and made.summary["workers"]["restarts"] == 2


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
def test_a_client_that_fails_looks_as_in_one_process(tmp_path: Path, way: str) -> None:
    plain, made = (go(tmp_path, Failing(way=way), failures="tolerate:0.5") for go in (inline, on_ray))
    assert table(made.log.rounds) == table(plain.log.rounds)
    assert table(made.log.clients) == table(plain.log.clients)
    assert table(made.log.events) == table(plain.log.events) and len(table(plain.log.events)) == 3
    assert {"raise": "disk full", "nan": "NaN or infinity in"}[way] in made.log.events["reason"].iloc[-1]
    with pytest.raises(RoundFailed, match=f"round 1, client {CULPRIT}, train"):
        on_ray(tmp_path, Failing(way=way))


@dataclass
class Exiting(FedAvg):
    """A client calls sys.exit."""

    def local_update(self, *args: Any) -> Any:
        sys.exit(3)


def test_a_client_that_exits_ends_the_run_and_not_the_worker(tmp_path: Path) -> None:
    with pytest.raises(
        RoundFailed, match=r"train, block \d .*: engine = 'ray': RuntimeError: a client called sys.exit\(3\)"
    ):
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


def test_a_chunk_halved_in_a_worker_is_halved_for_all_and_told_once(tmp_path: Path) -> None:
    made = on_ray(tmp_path, Hungry(), ray={**RAY, "engine": "vmap"}, block_size=6, dtype="float64")
    assert made.log.config["chunk"] == 1 and made.summary["bits_changed"] is True
    [event] = made.log.events[made.log.events["event"] == "out_of_memory"].to_dict("records")
    assert (event["chunk"], event["before"], event["round"]) == (1, 0, 1)
    again = on_ray(tmp_path, Hungry(), ray={**RAY, "engine": "vmap"}, block_size=6, dtype="float64", chunk=1)
    assert float(tree.norm(tree.sub(again.model, made.model))) < 1e-9 and again.summary["bits_changed"] is False


def test_a_worker_that_cannot_start_is_an_error_that_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(team, "START_S", 2.0)
    with pytest.raises(
        RoundFailed, match=r"ray.*each needs 1 CPUs and 1 GPUs \(ray.num_cpus, ray.num_gpus\), there are"
    ):
        on_ray(tmp_path, ray={**RAY, "num_gpus": 1.0})


def test_without_blocks_nothing_is_asked_of_ray() -> None:
    executor = RayExecutor(None, "loop", 0, Ray(), 1)  # type: ignore[arg-type]
    assert list(executor.run([], {}, None)) == [] and executor.evaluate({}, {}) == {}
    assert executor.summary()["num_workers"] == 0
    executor.close()
    executor.close()
