"""Whose samples give the mean and the deviation by which inputs are standardised.

Derivation: with training samples x (n, F) of the clients that train, mean_f = sum_i x_if / n and
std_f = sqrt(sum_i (x_if - mean_f)^2 / n), in float64; images (n, C, H, W) have one of each for a channel.
"""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from clients.device.samples import own_samples
from experiments.config.recipe_files import CONFIG, make
from experiments.deploy.server_app import device_settings
from experiments.run import run
from experiments.runs.data import data
from experiments.runs.setup import build
from fl_sim import Partition, Task
from fl_sim.errors import ConfigError
from fl_sim.learning.arrays import from_arrays
from fl_sim.population.partition import MANY, Resampled

N, CLIENTS, UNSEEN = 60, 5, 2
WORLD: dict[str, Any] = {
    "model": "lr",
    "clients": CLIENTS,
    "holdout_clients": UNSEEN,
    "validation": 0.1,
    "standardize": True,
    "partition.held_out": 0.25,
}


def samples(shape: tuple[int, ...] = (3,), seed: int = 0) -> Task:
    """Samples of very different sizes, so that each of them shows in the mean."""
    draw = np.random.default_rng(seed)
    x = draw.lognormal(0, 2, (N, *shape)).astype(np.float32)
    return from_arrays(x, np.arange(N) % 2)


def trained_on(partition: Partition) -> np.ndarray:
    """The samples of the training parts of the clients that train, by the definition."""
    parts = [partition.client(c)[: partition.sizes(c)[0]] for c in range(len(partition) - UNSEEN)]
    return np.unique(np.concatenate(parts))


@pytest.mark.parametrize("partition, shape", [("iid", (3,)), ("iid", (2, 4, 4)), ("resample", (3,))])
def test_the_moments_are_those_of_the_training_parts_alone(partition: str, shape: tuple[int, ...]) -> None:
    task, _, owners = data(make(task=samples(shape), partition=partition, **WORLD))
    rows = trained_on(owners)
    assert 0 < len(rows) < len(task.train["x"]) == N - N // 5 - 5
    x = task.train["x"].numpy()[rows].astype(np.float64)
    axes = (0, 2, 3) if len(shape) == 3 else 0
    transform: Any = task.transform
    np.testing.assert_allclose(transform.mean.numpy().ravel(), x.mean(axes), rtol=1e-13)
    np.testing.assert_allclose(transform.std.numpy().ravel(), x.std(axes), rtol=1e-13)


def test_all_takes_held_out_samples_and_unseen_clients_too_as_runs_did_before_the_setting(tmp_path: Path) -> None:
    task, kept, _ = data(make(task=samples(), standardize_on="all", **WORLD))
    transform: Any = task.transform
    x = task.train["x"].double().numpy()  # without the validation share
    assert len(kept["y"]) == 5
    np.testing.assert_allclose(transform.mean.numpy(), x.mean(0), rtol=1e-13)
    (tmp_path / "rounds.jsonl").touch()
    (tmp_path / CONFIG).write_text("standardize = true\n")
    assert make(str(tmp_path / CONFIG)).standardize_on == "all"
    (tmp_path / CONFIG).write_text("standardize = false\n")
    assert make(str(tmp_path / CONFIG), standardize=True).standardize_on == "train"


def test_samples_that_nobody_trains_on_change_no_digest(tmp_path: Path) -> None:
    base = {**WORLD, "rounds": 1, "local": {"batch_size": 0}, "out": str(tmp_path)}
    task, _, owners = data(make(task=samples(), **WORLD))
    kept = task.train["x"][trained_on(owners)][:, 0].numpy()
    digests, means = [], []
    for factor in (1.0, 50.0):
        changed = samples()
        changed.train["x"][~np.isin(changed.train["x"][:, 0].numpy(), kept)] *= factor
        digests.append(run(task=changed, **base).summary["digest"])
        transform: Any = data(make(task=changed, standardize_on="all", **WORLD))[0].transform
        means.append(transform.mean)
    assert digests[0] == digests[1] and (means[1] > means[0]).all()


def test_a_device_standardises_as_the_simulation_does() -> None:
    base = {"task": "digits", "clients": 6, "standardize": True, "holdout_clients": 2, "partition.held_out": 0.3}
    for more in ({}, {"standardize_on": "all"}, {"holdout_clients": 0}):
        config = make(**{**base, **more})
        setup = build(config)
        task, _ = own_samples(device_settings(setup), 1, "")
        here, there = task.transform, data(config)[0].transform
        assert here.mean.equal(there.mean) and here.std.equal(there.std)
    config = make(**base, standardize_on="all")
    spec = device_settings(build(config))
    del spec["standardize_on"]  # of a server that did not know it
    assert own_samples(spec, 1, "")[0].transform.mean.equal(data(config)[0].transform.mean)


def test_the_setting_does_nothing_without_standardize() -> None:
    with pytest.raises(ConfigError, match="standardize_on = 'all': does nothing here: acts in standardize"):
        make(standardize_on="all")


def test_of_very_many_draws_all_samples_are_taken_to_be_drawn() -> None:
    """Each of N samples is missed by k N draws with probability (1 - 1/N)^(k N) < e^-k; counting agrees."""
    few = Resampled(samples=20, clients=400, per_client=5, seed=0).hold_out(0.2, 0)
    assert few.trained_on(3).tolist() == trained_on_of(few, 3)
    above = MANY * 16 // 4 + 1
    assert few.trained_on(above).tolist() == trained_on_of(few, above) and len(few.trained_on(above)) == 16


def trained_on_of(partition: Partition, end: int) -> list[int]:
    """By the definition."""
    found = {int(i) for c in range(end) for i in partition.client(c)[: partition.sizes(c)[0]]}
    return sorted(found)
