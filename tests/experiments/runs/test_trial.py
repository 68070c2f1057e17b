"""The planner: what it measures and chooses, and that flags take precedence."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch

from experiments.config.recipe_files import make
from experiments.run import main
from experiments.runs.plan import fill, predict
from experiments.runs.setup import build
from experiments.runs.trial import ClientFailed, saved_bytes, widest_batch
from fl_sim import from_arrays
from fl_sim.executors.ray.options import Ray
from strategies.fedavg import FedAvg

CPU, GPU = torch.device("cpu"), torch.device("cuda")


def test_activations_are_counted_at_their_peak() -> None:
    w, x = torch.ones(3, 3, dtype=torch.float64, requires_grad=True), torch.ones(5, 3, dtype=torch.float64)
    with saved_bytes() as saved:
        (x @ w).sum().backward()  # type: ignore[no-untyped-call]
        first = saved[0]
        for _ in range(3):
            (x @ w).sum().backward()  # type: ignore[no-untyped-call]
    assert first == saved[0] == 5 * 3 * 8  # x, for the gradient of w; freed each time


def test_a_batch_that_a_sample_joins_needs_more_memory() -> None:
    """From four to five of a batch, where a client has 4 k + 1 samples: 100 of 3 clients are 34, 33 and 33."""
    x, y = torch.zeros(100, 2), torch.arange(100) % 2
    given = {"task": from_arrays(x, y, x_test=x[:2], y_test=y[:2]), "partition": "iid", "clients": 3, "model": "lr"}
    wider = [widest_batch(build(make(**given, local={"batch_size": 4, "last_batch": k}))) for k in ("keep", "join")]
    assert wider == [1.0, 1.25]
    assert widest_batch(build(make(**given, local={"batch_size": 5, "last_batch": "join"}))) == 1.0


@pytest.mark.parametrize(
    "given, processes, blocks, device, workers, share",
    [
        (Ray(num_cpus=1e-3), 8, 3, CPU, 3, 0.0),  # one for each block
        (Ray(num_cpus=1e-3), 2, 9, CPU, 2, 0.0),  # as many as fit in memory
        (Ray(num_cpus=1e-3), 0, 9, CPU, 1, 0.0),  # one in any case
        (Ray(num_workers=7), 2, 3, CPU, 7, 0.0),  # the flag decides
        (Ray(num_cpus=1e-3), 4, 9, GPU, 4, 0.25),
        (Ray(num_cpus=1e-3), 3, 9, GPU, 3, 0.333),
        (Ray(num_gpus=0.5), 9, 9, GPU, 2, 0.5),
        (Ray(num_workers=2, num_cpus=1e-3), 9, 9, GPU, 2, 0.5),
    ],
)
def test_workers_are_as_many_as_fit_and_have_work(
    given: Ray, processes: int, blocks: int, device: torch.device, workers: int, share: float
) -> None:
    chosen = fill(given, processes, blocks, device)
    assert (chosen.num_workers, chosen.num_gpus, chosen.num_cpus) == (workers, share, given.num_cpus)


@pytest.mark.parametrize("engine", ["loop", "vmap"])
def test_a_prediction_is_of_the_order_of_what_happens(engine: str, tmp_path: Path) -> None:
    from experiments.run import run

    settings: dict[str, Any] = {
        "clients": 20,
        "engine": engine,
        "local": {"epochs": 5},
        "rounds": 3,
        "evaluate_every": 3,
    }
    found, _ = predict(build(make(**settings)))
    seconds = run(out=str(tmp_path), **settings).log.rounds["seconds"].iloc[2:].median()
    assert (
        seconds / 10 < found["seconds_per_round"] < seconds * 10
    )  # loose: a shared machine; it must not be off by the number of clients
    assert found["fits"] is True and found["workers"] == 1 and found["worker_mb"] > 400


def test_the_plan_is_printed_and_nothing_is_written(tmp_path: Path, capsys: Any) -> None:
    assert main(["--dry-run", "--json", "--clients", "5", "--out", str(tmp_path / "runs")]) == 0
    plan = json.loads(capsys.readouterr().out.strip().splitlines()[-1])
    assert {"workers", "gpu_fraction", "seconds_per_round", "worker_mb", "fits", "largest_chunk", "clients"} <= set(
        plan
    )
    assert not (tmp_path / "runs").exists()


@dataclass
class Broken(FedAvg):
    """Cannot train."""

    def local_update(self, *args: Any) -> Any:
        raise RuntimeError("no such luck")


def test_a_client_that_cannot_train_is_reported_before_the_run() -> None:
    with pytest.raises(ClientFailed, match=r"client \d+: RuntimeError: no such luck"):
        predict(build(make(strategy=Broken())))
