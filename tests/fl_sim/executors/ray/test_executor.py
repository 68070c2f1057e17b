"""Ray's workers compute the bits of one process, whatever their number.

Workers that die: test_executor_failures.py. Two nodes: test_cluster.py.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch

from fl_sim import Callback, Run
from fl_sim.executors.ray import ray_workers
from fl_sim.executors.ray.executor import RayExecutor
from fl_sim.executors.ray.options import Ray
from fl_sim.learning.loss import Batch, Loss
from fl_sim.learning.rule import Metrics
from fl_sim.learning.settings import Local
from fl_sim.tree import Tree
from strategies.fedavg import FedAvg
from tests.fl_sim.executors.ray.ray_runs import RAY, inline, on_ray, table

pytestmark = [pytest.mark.slow, pytest.mark.ray, pytest.mark.usefixtures("ray_workers")]


@pytest.mark.parametrize("engine", ["loop", "vmap"])
def test_any_number_of_workers_gives_the_bits_of_one_process(tmp_path: Path, engine: str) -> None:
    """Digests, evaluations and all clients' numbers are those of the inline executor, with 4, 1 and 2 workers."""
    plain = inline(tmp_path, engine=engine, evaluate_train=True)
    for workers in (4, 1, 2):
        on_workers = on_ray(tmp_path, ray={"num_workers": workers, "engine": engine}, evaluate_train=True)
        assert table(on_workers.log.rounds) == table(plain.log.rounds)
        assert table(on_workers.log.clients) == table(plain.log.clients)
        assert table(on_workers.log.events) == []
        facts = on_workers.summary["workers"]
        assert (facts["num_workers"], facts["nodes"], facts["retries"], facts["restarts"]) == (workers, 1, 0, 0)
        assert 0 <= facts["idle_share"] < 1
        assert on_workers.log.config["engine"] == "ray" and on_workers.log.config["ray"]["engine"] == engine
        assert on_workers.summary["engine"] == "ray"


@dataclass
class Remembering(FedAvg):
    """A client takes a smaller part of its update the more often it has trained, so that its state changes the bits."""

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
    on_workers = on_ray(tmp_path, Remembering(), ray={**RAY, "engine": engine}, cohort=7)
    assert table(on_workers.log.rounds) == table(plain.log.rounds) and table(on_workers.log.clients) == table(
        plain.log.clients
    )
    assert on_workers.log.clients["times"].max() == 3 and on_workers.log.clients["times"].min() == 1


def test_replies_travel_one_by_one_for_a_strategy_without_a_pool(tmp_path: Path) -> None:
    """Flower's own strategies aggregate full replies."""
    plain, on_workers = (go(tmp_path, "flwr.serverapp.strategy:FedAvg") for go in (inline, on_ray))
    assert table(plain.log.rounds) == table(on_workers.log.rounds) and len(on_workers.log.rounds) == 4


def _memory_maps_of_samples(worker: Any) -> list[str]:
    """Runs in a worker: the lines of /proc/self/maps that hold its samples."""
    lines = Path("/proc/self/maps").read_text().splitlines()
    found = []
    for key, value in worker.objects.items():
        if key.endswith("/learner"):
            address = value[1].data["x"].data_ptr()
            spans = [(*(int(end, 16) for end in line.split()[0].split("-")), line) for line in lines]
            found += [line for start, end, line in spans if start <= address < end]
    return found


class CollectMaps(Callback):
    """Collects the memory maps of the workers' samples."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def on_round_end(self, run: Run, row: dict[str, Any]) -> None:
        import ray

        assert ray_workers._workers is not None
        for handle in ray_workers._workers.handles.values():
            self.lines += ray.get(handle.actor.__ray_call__.remote(_memory_maps_of_samples))


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="needs Linux's /proc")
def test_samples_are_shared_by_workers_and_with_the_next_run(tmp_path: Path) -> None:
    on_ray(tmp_path, rounds=1)
    workers, collect = ray_workers._workers, CollectMaps()
    assert workers is not None
    shared = {key: item[1] for key, item in workers._shared_arrays.items()}
    numbers = set(workers.handles)
    on_ray(tmp_path, rounds=1, callbacks=[collect])
    assert len(collect.lines) >= 4 and all(
        "plasma" in line and line.split()[1].startswith("rw-s") for line in collect.lines
    )
    assert workers is ray_workers._workers and set(workers.handles) == numbers
    assert {key: item[1] for key, item in workers._shared_arrays.items()} == shared
    assert len(shared) == 2  # the inputs of the training and of the test set


def test_without_blocks_or_samples_ray_is_not_started() -> None:
    executor = RayExecutor(None, "loop", 0, Ray(), 1)  # type: ignore[arg-type]
    assert list(executor.run([], {}, None)) == [] and executor.evaluate({}, {}) == {}
    assert executor.summary()["num_workers"] == 0
    executor.close()
    executor.close()
