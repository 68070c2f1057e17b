"""Durations of devices: by hand, by their distributions, and as functions of keys alone."""

import math

import numpy as np
import pytest

from clients.profiles.equal import equal
from clients.profiles.halfnormal import halfnormal
from clients.profiles.lognormal import lognormal
from clients.profiles.tiers import tiers
from clients.profiles.zipf import zipf
from fl_sim.errors import ConfigError, RoundFailed
from fl_sim.population.devices import SECOND, Devices, Draw, Drawn, Work, whole_nanoseconds

MANY = 40_000


def work(clients: range | list[int], steps: int = 1, samples: int = 0, down: int = 0, up: int = 0) -> Work:
    """The same work for each of some clients."""
    ids = np.array(clients, np.int64)
    return Work(ids, *(np.full(len(ids), n, np.int64) for n in (steps, samples, down, up)))


def seconds(devices: Devices, clients: range | list[int] = range(MANY), launch: int = 1) -> np.ndarray:
    """How long one step takes."""
    return devices.durations(work(clients), launch).total / SECOND


@pytest.mark.parametrize(
    ("slowness", "numbers"),
    [
        (math.nan, {}),
        (-1.0, {}),
        (math.inf, {}),
        (1.0, {"step": 5e9}),
        (1.0, {"latency": 2e9, "step": 1e9}),  # each part can be counted, and the sum cannot
        (1.0, {"down": 1e-9, "up": 1e-9}),
    ],
)
def test_durations_that_cannot_be_counted_are_refused(slowness: float, numbers: dict[str, float]) -> None:
    """They were cut at 146 years, and negative where that was added up: the clock ran backwards."""

    def draw(clients: np.ndarray, device: np.ndarray, launch: np.ndarray) -> Drawn:
        return Drawn(np.where(clients == 5, slowness, 1e-9), np.zeros(len(clients), np.int64))

    with pytest.raises(RoundFailed, match="client [45]: virtual seconds of its message .*at most 4.6e[+]09 together"):
        Devices(draw, **numbers).durations(work([4, 5], down=8, up=8), 1)  # type: ignore[arg-type]


@pytest.mark.parametrize("seconds", [1e-10, -1.0, 2e9])
def test_settings_that_are_no_whole_nanosecond_are_refused(seconds: float) -> None:
    with pytest.raises(ConfigError, match=f"profile.on = {seconds!r}: virtual time is counted in nanoseconds"):
        Devices(equal(), on=seconds, off=1.0)
    assert (whole_nanoseconds("k", 0.0), whole_nanoseconds("k", 1e-9), whole_nanoseconds("k", 1e9)) == (0, 1, 10**18)


def test_a_duration_by_hand() -> None:
    """Slowness 1: .5 + 300 / 100 before, 4 x 2 + 20 x .25 of training, .5 + 100 / 50 after."""
    devices = Devices(equal(), step=2.0, sample=0.25, down=100.0, up=50.0, latency=0.5)
    took = devices.durations(work([7], steps=4, samples=20, down=300, up=100), launch=1)
    parts = [int(part[0]) / SECOND for part in (took.before, took.training, took.after, took.total)]
    assert parts == [3.5, 13.0, 2.5, 19.0] and took.vanishes.tolist() == [-1]


@pytest.mark.parametrize(
    "draw, mean",
    [(halfnormal(2.0), 2 * math.sqrt(2 / math.pi)), (lognormal(0.3, 0.6), math.exp(0.3 + 0.18)), (zipf(2.0, 3), None)],
)
def test_the_mean_slowness_is_that_of_the_distribution(draw: Draw, mean: float | None) -> None:
    """Of Zipf with a = 2 and 3 values: (1 + 1/2 + 1/3) / (1 + 1/4 + 1/9). Five standard errors are below 3 %."""
    expected = mean if mean is not None else (1 + 1 / 2 + 1 / 3) / (1 + 1 / 4 + 1 / 9)
    assert seconds(Devices(draw)).mean() == pytest.approx(expected, rel=0.03)


def test_a_client_keeps_its_device_or_draws_one_a_launch() -> None:
    kept, drawn = Devices(halfnormal()), Devices(halfnormal(), per="launch")
    assert (seconds(kept, [3, 9], 1) == seconds(kept, [3, 9], 2)).all()
    assert (seconds(drawn, [3, 9], 1) != seconds(drawn, [3, 9], 2)).all()
    assert (seconds(drawn, [9, 3], 2) == seconds(drawn, [3, 9], 2)[::-1]).all()  # whoever else is asked
    assert (seconds(Devices(halfnormal(), seed=1), [3, 9]) != seconds(kept, [3, 9])).all()


def test_speed_classes_are_thirds_of_the_devices_the_fastest_first() -> None:
    devices = Devices(lognormal())
    took = devices.durations(work(range(MANY)), 1)
    classes = [took.total[took.speed_class == k] for k in range(3)]
    assert classes[0].max() <= classes[1].min() and classes[1].max() <= classes[2].min()
    assert [len(part) for part in classes] == pytest.approx([MANY / 3] * 3, rel=0.05)


EDGE = {"shares": "6,5,5", "seconds": "100,200,400", "deviations": "1,2,4", "delay": 5.0}
"""NVIDIA FLARE's example of edge devices: 16 of them."""


def test_tiers_have_as_many_clients_as_their_shares_say() -> None:
    took = Devices(tiers(16, 0, "client", **EDGE), step=0.0).durations(work(range(16)), 1)
    assert np.bincount(took.speed_class).tolist() == [6, 5, 5]


def test_16_updates_of_nvidia_flares_edge_devices_take_as_long_as_there() -> None:
    """A tier per launch: the mean of 105, 205 and 405 s by 6, 5, 5 of 16 is 230.0 (equal shares: 238.3).

    A tier per client, all at work: 16 / (6 / 105 + 5 / 205 + 5 / 405) = 170.4. Synchronous: the slowest of 16.
    """
    launches = Devices(tiers(16, 0, "launch", **EDGE), per="launch", step=0.0)
    assert seconds(launches).mean() == pytest.approx(230.0, rel=0.02)
    even = Devices(tiers(16, 0, "launch", **{**EDGE, "shares": "1,1,1"}), per="launch", step=0.0)
    assert seconds(even).mean() == pytest.approx(238.3, rel=0.02)
    devices = Devices(tiers(16, 0, "client", **EDGE), step=0.0)
    rounds = np.array([seconds(devices, range(16), launch) for launch in range(200)])
    assert 16 / (1 / rounds.mean(0)).sum() == pytest.approx(170.5, rel=0.02)
    assert rounds.max(1).mean() == pytest.approx(409.3, rel=0.02)


@pytest.mark.parametrize(
    "key, text", [("seconds", "1,2"), ("seconds", "1,x,3"), ("shares", "0,0"), ("downs", "1,-1,1")]
)
def test_wrong_lists_of_tiers_are_refused_by_name(key: str, text: str) -> None:
    with pytest.raises(ValueError, match=f"profile.{key} = '{text}'"):
        tiers(4, 0, "client", **{key: text})


def test_a_tier_without_a_limit_of_its_own_has_none() -> None:
    devices = Devices(tiers(2, 0, "client", shares="1,1", seconds="0,0", downs="100,0"), step=0.0)
    assert sorted(devices.durations(work(range(2), down=50), 1).before.tolist()) == [0, SECOND // 2]


def test_a_share_of_launches_vanishes_within_their_work() -> None:
    took = Devices(equal(), vanish=0.3).durations(work(range(MANY), steps=5), 1)
    gone = took.vanishes[took.vanishes >= 0]
    assert len(gone) / MANY == pytest.approx(0.3, abs=0.012)
    assert gone.max() < 5 * SECOND and gone.mean() == pytest.approx(2.5 * SECOND, rel=0.03)


def test_spells_follow_one_another_and_a_device_comes_when_its_spell_begins() -> None:
    devices, clients = Devices(equal(), on=3.0, off=9.0), np.arange(MANY)
    there = np.array([devices.available(clients[:50], t * SECOND // 10) for t in range(240)])
    assert there.mean(0) == pytest.approx(0.25, abs=0.02)  # each is there for a quarter of the time
    assert devices.available(clients, 0).mean() == pytest.approx(0.25, abs=0.012)
    comes = devices.comes(clients[:50], 0)
    for client, instant in enumerate(comes.tolist()):
        assert devices.available(np.array([client]), instant)[0]
        assert instant == 0 or not devices.available(np.array([client]), instant - 1)[0]
