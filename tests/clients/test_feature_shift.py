"""Feature shift: its draws, its formula, and that simulation, devices and folders of devices see the same pictures."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from clients import feature_shift
from clients.device.folder import from_folder
from clients.device.samples import own_samples
from clients.feature_shift import changed, rotated, shifted, shifts
from clients.partitions.resample import resample
from experiments.config.recipe_files import make
from experiments.deploy.server_app import device_settings
from experiments.runs.data import data
from experiments.runs.setup import build
from fl_sim import Partition, Task, from_arrays, rng
from fl_sim.errors import ConfigError

NONE = {"contrast": 1.0, "inverted": False, "noise": 0.0, "angle": 0.0}


def task_of(x: Any, **given: Any) -> Task:
    return from_arrays(x, np.arange(len(x)) % 2, x_test=x[:2], y_test=np.arange(2), **given)


def pictures(n: int = 12, side: int = 6) -> torch.Tensor:
    return torch.from_numpy(rng.generator(rng.key(0, "pictures")).integers(0, 256, (n, 1, side, side), np.uint8))


def fixed(monkeypatch: pytest.MonkeyPatch, **drawn: Any) -> None:
    """Every client's shift is ``drawn``, and none of the rest."""
    monkeypatch.setattr(
        feature_shift,
        "shifts",
        lambda seed, clients, s: {k: np.full(len(clients), v) for k, v in (NONE | drawn).items()},
    )


def by_hand(x: list[float]) -> list[float]:
    return (
        changed(torch.tensor(x, dtype=torch.float64).reshape(1, 1, 1, -1), *[np.zeros(1, int)] * 2, 1.0, 0)
        .flatten()
        .tolist()
    )


# The draws ----------------------------------------------------------------------------------------------------------


def test_draws_are_those_of_the_docstring_and_of_the_client_alone() -> None:
    """Bounds, and means within 5 standard errors of 2000 draws: 4^(-s u) has the mean (1 - 4^-s) / (s ln 4)."""
    s = 0.6
    drawn = shifts(0, np.arange(2000), s)
    assert drawn["contrast"].min() >= 4**-s and drawn["contrast"].max() <= 1
    assert drawn["noise"].min() >= 0 and drawn["noise"].max() <= 0.2 * s and abs(drawn["angle"]).max() <= 30 * s
    expected = {"contrast": (1 - 4**-s) / (s * np.log(4)), "inverted": s / 2, "noise": 0.1 * s, "angle": 0.0}
    for name, mean in expected.items():
        assert abs(drawn[name].mean() - mean) < 5 * drawn[name].std() / 2000**0.5, name
    few = shifts(0, np.array([7, 1999]), s)
    assert all((few[name] == drawn[name][[7, 1999]]).all() for name in drawn)
    assert not np.isclose(shifts(1, np.arange(2000), s)["noise"], drawn["noise"]).any()


# The formula --------------------------------------------------------------------------------------------------------


def test_contrast_and_inversion_by_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    fixed(monkeypatch, contrast=0.5)
    assert by_hand([0, 0.5, 1]) == [0.25, 0.5, 0.75]  # .5 + (v - .5) / 2
    fixed(monkeypatch, contrast=0.5, inverted=True)
    assert by_hand([0, 0.5, 1]) == [0.75, 0.5, 0.25]
    fixed(monkeypatch)
    assert torch.equal(changed(pictures(), *[np.zeros(12, int)] * 2, 1.0, 0, 255.0), pictures())


def test_a_rotation_is_anticlockwise_about_the_centre() -> None:
    x = pictures(3).double()
    turned = torch.stack([x[0].rot90(1, (1, 2)), x[1].rot90(-1, (1, 2)), x[2]])
    torch.testing.assert_close(rotated(x, np.array([90.0, -90.0, 0.0])), turned, rtol=0, atol=1e-9)
    # of 1 x 3 pixels a, b, c at -1, 0, 1: by 60 degrees the outer ones come from -cos 60 = -1/2 and 1/2, between two
    turned = rotated(torch.tensor([2.0, 4.0, 8.0], dtype=torch.float64).reshape(1, 1, 1, 3), np.array([60.0]))
    torch.testing.assert_close(turned.flatten(), torch.tensor([3.0, 4.0, 6.0], dtype=torch.float64))


def test_each_picture_has_the_draws_of_its_client(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without noise: 1/2 + contrast (v - 1/2) of the rotated picture, and 1 minus that where the client inverts."""
    monkeypatch.setattr(feature_shift, "_normal", lambda words, shape: torch.zeros(len(words), *shape))
    x, clients = pictures(4).double() / 255, np.array([4, 5, 5, 6])
    new, drawn = changed(x, clients, np.arange(4), 0.9, 2), shifts(2, clients, 0.9)
    assert len(set(drawn["inverted"])) == 2
    for i in range(4):
        v = 0.5 + drawn["contrast"][i] * (rotated(x[i : i + 1], drawn["angle"][i : i + 1]) - 0.5)
        torch.testing.assert_close(new[i : i + 1], 1 - v if drawn["inverted"][i] else v, rtol=0, atol=1e-12)


def test_noise_is_normal_and_of_the_sample(monkeypatch: pytest.MonkeyPatch) -> None:
    """40 000 numbers: mean and deviation within 5 standard errors; below one deviation are 84.13 %."""
    fixed(monkeypatch, noise=0.1)
    x, clients, places = torch.full((400, 1, 10, 10), 0.5), np.arange(400) // 200, np.arange(400) % 200
    z = (changed(x, clients, places, 1.0, 0) - 0.5) / 0.1
    assert abs(z.mean()) < 5 / 200 and abs(z.std() - 1) < 5 / 283 and abs((z < 1).float().mean() - 0.8413) < 0.01
    assert len(z.flatten(1).unique(dim=0)) == 400
    alone = changed(x[:1], clients[250:251], places[250:251], 1.0, 0)
    assert torch.equal(alone[0], changed(x, clients, places, 1.0, 0)[250])


def test_pixels_are_cut_off_at_black_and_white_and_rounded(monkeypatch: pytest.MonkeyPatch) -> None:
    fixed(monkeypatch, noise=0.3)
    x = torch.tensor([0, 255], dtype=torch.uint8).repeat(500).reshape(1, 1, 1, 1000)
    new = changed(x, *[np.zeros(1, int)] * 2, 1.0, 0, 255.0).flatten()
    assert new.dtype == torch.uint8 and (new[::2] == 0).float().mean() > 0.4 and (new[1::2] == 255).float().mean() > 0.4
    assert new[::2].float().mean() < 60 < 195 < new[1::2].float().mean()  # black stays dark: nothing wraps around


# A task -------------------------------------------------------------------------------------------------------------


def test_each_owner_changes_its_own_samples_and_nothing_else() -> None:
    task = task_of(pictures())
    partition = Partition.of([np.array([9, 2, 5]), np.array([0, 1, 3, 4])]).hold_out(0.3, 0)
    new, old = shifted(task, partition, 0.8, 4), task.train["x"].clone()
    for c in range(2):
        rows = partition.client(c)
        mine = changed(old[rows], np.full(len(rows), c), np.arange(len(rows)), 0.8, 4, 255.0)
        assert torch.equal(new.train["x"][rows], mine) and not torch.equal(mine, old[rows])
    free = [6, 7, 8, 10, 11]
    assert torch.equal(new.train["x"][free], old[free]) and new.train["x"].dtype == torch.uint8
    assert torch.equal(task.train["x"], old) and new.test is task.test and new.train["y"] is task.train["y"]
    assert shifted(task, partition, 0.0, 4) is task


@pytest.mark.parametrize("floats", [False, True])
def test_many_samples_are_changed_in_parts(floats: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    task = task_of(pictures() / 255 if floats else pictures())
    partition = Partition.of(np.array_split(np.arange(12), 5))
    whole = shifted(task, partition, 1.0, 0)
    monkeypatch.setattr(feature_shift, "CHUNK", 100)
    assert torch.equal(shifted(task, partition, 1.0, 0).train["x"], whole.train["x"])


SMALL = pictures(4, 3)


@pytest.mark.parametrize(
    "task, why",
    [
        (
            task_of(torch.rand(4, 3)),
            r"task arrays has samples of shape \(3,\), which are no pictures .* \(N, 1, 28, 28\)",
        ),
        (task_of(SMALL.int()), r"has integers \(torch.int32\) as pictures; give uint8, or floats from 0 to 1"),
        (
            task_of(torch.ones(4, 1, 3, 3) - 1.5),
            "has pixels from -0.5 to -0.5, where black is 0 and white 1; give uint8",
        ),
        (task_of(torch.full((4, 1, 3, 3), 200.0)), "has pixels from 200 to 200, where black is 0 and white 1"),
        (
            replace(task_of(SMALL), train={"x": SMALL, "y": torch.rand(4, 1, 3, 3)}),
            "has pictures or sequences as targets",
        ),
    ],
)
def test_samples_that_are_no_pictures_are_refused(task: Task, why: str) -> None:
    with pytest.raises(
        ConfigError, match=rf"^partition.feature_shift = 0.5: task arrays .*{why.removeprefix('task arrays ')}"
    ):
        shifted(task, Partition.of([np.arange(4)]), 0.5, 0)


def test_clients_that_share_samples_are_refused() -> None:
    task = task_of(pictures())
    with pytest.raises(ConfigError, match=r"^partition.feature_shift = 0.5: clients of this partition share samples"):
        shifted(task, resample(task, 3, 0), 0.5, 0)


# A run and its devices ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("more", [{}, {"standardize": True}])
def test_a_device_has_the_pictures_of_its_client(more: dict[str, Any]) -> None:
    config = make(task="digits", clients=4, **{"partition.feature_shift": 0.7, "partition.held_out": 0.2}, **more)
    setup = build(config)
    task, own = own_samples(device_settings(setup), 2, "")
    rows = torch.from_numpy(setup.partition.client(2))
    of_device = task.transform({"x": task.train["x"].float()}, None)["x"]
    assert torch.equal(of_device, setup.task.train["x"][rows]) and own.sizes(2) == setup.partition.sizes(2)
    plain, _, _ = data(
        replace(config, partition=make(task="digits", clients=4, **{"partition.held_out": 0.2}).partition)
    )
    whole, _, _ = data(config)
    assert torch.equal(plain.test["x"], whole.test["x"]) and not torch.equal(plain.train["x"], whole.train["x"])


def test_a_devices_own_folder_has_the_shift_of_its_client(tmp_path: Path) -> None:
    x = pictures(6)
    for c in range(2):
        (tmp_path / str(c)).mkdir()
    for i in range(6):
        Image.fromarray(x[i, 0].numpy()).save(tmp_path / str(i // 3) / f"{i}.png")
    seen: Any = {"partition.seed": 5, "partition.held_out": 0.3, "partition.feature_shift": 0.9}
    spec = {"task": "images", "clients": 4, "inputs": [1, 6, 6], "outputs": 2, **seen}
    task, _ = from_folder(spec, 3, tmp_path)
    simulated = replace(task_of(x), train={"x": x, "y": torch.arange(6) // 3})
    partition = Partition.of([*np.empty((3, 0), int), np.arange(6)], idle=(0, 1, 2)).hold_out(0.3, 5)
    assert torch.equal(task.train["x"], shifted(simulated, partition, 0.9, 5).train["x"][partition.client(3)])
