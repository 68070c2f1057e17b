"""The clock of events alone, without training: staleness in theory, devices of other papers, who starts in whose place.

Legend: c clients in flight, K replies a server step takes.
"""

import numpy as np
import pytest

from clients.profiles.equal import equal
from clients.profiles.halfnormal import halfnormal
from clients.profiles.tiers import tiers
from fl_sim.errors import RoundFailed
from fl_sim.grids.virtual_time.event_clock import EventClock
from fl_sim.population.devices import SECOND, Devices, Drawn, Work


def one_step(clients: np.ndarray) -> Work:
    """One step of one sample each, without bytes."""
    ones = np.ones(len(clients), np.int64)
    return Work(clients, ones, ones, 0 * ones, 0 * ones)


def driven(clock: EventClock, c: int, k: int, completions: int) -> tuple[float, float]:
    """(mean staleness, virtual seconds) of so many completions, ``k`` to a step."""
    versions, version, late, buffer = dict[int, int](), 0, list[int](), 0
    versions |= {flight.client: 0 for flight in clock.start(c)}
    while len(late) < completions:
        for flight in clock.next():
            late.append(version - versions[flight.client])
            version, buffer = version + (buffer + 1) // k, (buffer + 1) % k
        versions |= {flight.client: version for flight in clock.start(c - len(clock.in_flight))}
    return sum(late) / len(late), clock.now / SECOND


@pytest.mark.parametrize("c, k", [(10, 1), (100, 10)])
def test_mean_staleness_is_c_minus_1_over_k(c: int, k: int) -> None:
    """Of continuous durations, whatever their distribution: 9.0 and 9.9, from 200 c completions on."""
    clock = EventClock(Devices(halfnormal(), per="launch"), range(10_000), one_step, 0)
    assert driven(clock, c, k, 200 * c)[0] == pytest.approx((c - 1) / k, rel=0.02)


@pytest.mark.parametrize("c, k, size", [(10, 10, 10), (100, 10, 20), (100, 1, 15)])
def test_mean_waves_are_those_of_a_reference(c: int, k: int, size: int) -> None:
    """All that have started and not trained do so when a step needs one of them: within 10 % of measured sizes."""
    clock = EventClock(Devices(halfnormal(), per="launch"), range(1000), one_step, 0)
    waiting, buffer, waves = {flight.number for flight in clock.start(c)}, list[int](), list[int]()
    for _ in range(6000):
        for flight in clock.next():
            buffer.append(flight.number)
            if len(buffer) == k:
                if not waiting.isdisjoint(buffer):
                    waves.append(len(waiting))
                    waiting.clear()
                buffer.clear()
        waiting |= {flight.number for flight in clock.start(c - len(clock.in_flight))}
    assert np.mean(waves) == pytest.approx(size, rel=0.1)


@pytest.mark.parametrize(
    "per, shares, seconds",
    [("launch", "6,5,5", 230.0), ("launch", "1,1,1", 238.3), ("client", "6,5,5", 170.5)],
)
def test_nvflares_edge_devices(per: str, shares: str, seconds: float) -> None:
    """16 updates of 16 devices that are always at work take a mean duration: 3600 / 16 + 5, or 700 / 3 + 5.

    Where a device keeps its tier, 16 divided by the rate of all, 6 / 105 + 5 / 205 + 5 / 405: the fast count more.
    """
    draw = tiers(16, 0, per, shares, "100,200,400", "1,2,4", delay=5.0)
    clock = EventClock(Devices(draw, per=per, step=0.0), range(16), one_step, 1)  # type: ignore[arg-type]
    updates = 16 * 100
    assert driven(clock, 16, 16, updates)[1] / (updates / 16) == pytest.approx(seconds, rel=0.02)


def doubling(clients: np.ndarray, device: np.ndarray, launch: np.ndarray) -> Drawn:
    """Client c takes 2^c seconds."""
    return Drawn(2.0**clients, np.zeros(len(clients), np.int64))


def test_who_is_done_at_one_instant_comes_by_id_and_a_client_is_in_flight_once() -> None:
    """All four start; 0 is done after 1 s; it alone is idle, and starts again: 0 and 1 are done at 2 s."""
    clock = EventClock(Devices(doubling, 1), range(4), one_step, 0)
    assert sorted(flight.client for flight in clock.start(9)) == [0, 1, 2, 3] and clock.start(1) == []
    seen = []
    for _ in range(3):
        done = [flight.client for flight in clock.next()]
        seen.append((clock.now // SECOND, done, [flight.client for flight in clock.start(1)]))
    assert seen == [(1, [0], [0]), (2, [0, 1], seen[1][2]), (3, seen[2][1], seen[2][2])]


def test_starts_are_uniform_among_idle_clients() -> None:
    """3 of 40 in flight for ever; the other 37 are drawn about equally often: chi^2 of 36 degrees below its 99.9 %."""
    slow = Devices(lambda clients, device, launch: Drawn(np.where(clients < 3, 1e6, 1.0), 0 * clients), 1)
    clock, counts = EventClock(slow, range(40), one_step, 3), np.zeros(40)
    clock.start_these([0, 1, 2])
    for _ in range(3700):
        [flight] = clock.start(1)
        counts[flight.client] += 1
        clock.next()
    assert counts[:3].sum() == 0 and ((counts[3:] - 100) ** 2 / 100).sum() < 67.99


def test_a_start_waits_for_a_device_that_is_away() -> None:
    """One device, there for 1 s of 10 s, works for 1.5 s: it starts once in each spell."""
    clock = EventClock(Devices(lambda c, d, e: Drawn(1.5 + 0.0 * c, 0 * c), 1, on=1.0, off=9.0), range(1), one_step, 0)
    starts = []
    while len(starts) < 3:
        starts += [flight.begin for flight in clock.start(1)]
        clock.next()
    assert np.diff(starts).tolist() == [10 * SECOND, 10 * SECOND]
    gone = EventClock(Devices(doubling, 1), range(1), one_step, 0)
    with pytest.raises(RoundFailed, match="no client is in flight"):
        gone.next()


def test_virtual_time_ends() -> None:
    """Two launches of 3e9 seconds are together beyond 2^62 ns."""
    clock = EventClock(Devices(equal(), 1, step=3e9), range(9), one_step, 0)
    clock.start(1)
    assert clock.next()[0].end == 3 * 10**18
    clock.start(1)
    with pytest.raises(RoundFailed, match="virtual time ends after 4.6e[+]09 seconds, and this is 6e[+]09"):
        clock.next()


def test_a_clock_goes_on_where_it_stood() -> None:
    """With draws made ahead, and clients in flight."""

    def run(clock: EventClock, steps: int) -> list[tuple[int, int]]:
        seen = []
        for _ in range(steps):
            clock.start(5 - len(clock.in_flight))
            seen += [(flight.client, flight.end) for flight in clock.next()]
        return seen

    clock, copy = (EventClock(Devices(halfnormal(), per="launch"), range(50), one_step, 0) for _ in range(2))
    run(clock, 7)
    copy.restore(clock.state())
    assert run(copy, 20) == run(clock, 20)


def by_client(clients: np.ndarray, device: np.ndarray, launch: np.ndarray) -> Drawn:
    """Client k takes k + 1 seconds a step."""
    return Drawn(clients + 1.0, np.zeros(len(clients), np.int64))


def test_idle_is_the_share_of_places_in_which_no_device_works() -> None:
    """Two places: both work for a second, then one of them for another; then a device is away for a while."""
    clock = EventClock(Devices(by_client), range(2), one_step, 0)
    clock.start_these([0, 1])
    assert [flight.client for flight in clock.next()] == [0] and clock.idle(2) == 0
    assert [flight.client for flight in clock.next()] == [1] and clock.idle(2) == 0.5
    assert clock.idle(2) is None  # at the same instant
    devices = Devices(by_client, on=1.0, off=9.0)
    clock = EventClock(devices, range(2), one_step, 0)
    [begin] = devices.comes(np.array([1]), 0).tolist()
    assert begin > 0
    clock.start_these([1])
    state = clock.state()
    clock.next()
    assert clock.idle(1) == begin / (begin + 2 * SECOND)
    clock.restore(state)
    clock.next()
    assert clock.idle(1) == begin / (begin + 2 * SECOND)


def test_a_launch_has_trained_on_what_it_did_until_it_ends() -> None:
    """All of 10 samples, or of a device that vanishes at a uniform instant of its work as large a part of them."""

    def ten(clients: np.ndarray) -> Work:
        return one_step(clients)._replace(samples=np.full(len(clients), 10))

    clock = EventClock(Devices(by_client, vanish=0.5), range(100), ten, 0)
    for flight in clock.start(50):
        whole = (flight.client + 1) * SECOND
        assert flight.samples == 10 * (flight.end - flight.begin) // whole
        assert flight.vanishes == (flight.end - flight.begin < whole)
