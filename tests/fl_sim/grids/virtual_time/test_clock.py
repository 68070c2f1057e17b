"""When a round ends, and whose work is used: by hand, for devices that take 1, 2, 4 and 8 virtual seconds a step."""

from typing import Any

import numpy as np
import pytest

from fl_sim.errors import RoundFailed
from fl_sim.grids.virtual_time.clock import VirtualTime, times
from fl_sim.population.devices import SECOND, Devices, Drawn, Durations, Work


def doubling(clients: np.ndarray, device: np.ndarray, launch: np.ndarray) -> Drawn:
    """Client c has slowness 2^c, and is of class 1 from client 2 on."""
    return Drawn(2.0**clients, (clients >= 2).astype(np.int64))


def work(*clients: int, steps: int = 1) -> Work:
    """``steps`` steps of 10 samples for each client."""
    n = len(clients)
    return Work(
        np.array(clients), np.full(n, steps), np.full(n, 10 * steps), np.zeros(n, np.int64), np.zeros(n, np.int64)
    )


def clock(deadline: float = 0.0, wanted: int = 0, partial: bool = False, **devices: Any) -> VirtualTime:
    return VirtualTime(Devices(doubling, 2, **devices), wanted, round(deadline * SECOND), partial)


def test_a_round_ends_with_its_last_client() -> None:
    """Clients 0, 1, 3 take 1, 2, 8 s: of 3 x 8 s they wait 7 + 6 + 0."""
    time = clock()
    outcome = time.close(work(0, 1, 3), 1)
    assert outcome.shares.tolist() == [1, 1, 1] and outcome.reasons == {}
    assert time.columns == {
        "virtual_time": 8.0,
        "device_idle": pytest.approx(13 / 24),
        "wasted_examples": 0,
        "counted_by_speed": [2, 1],
    }
    assert outcome.numbers[2] == {"virtual_seconds": 8.0, "speed_class": 1}
    time.close(work(0), 2)
    assert time.columns["virtual_time"] == 9.0


def test_a_round_that_waits_for_all_is_one_whose_last_wanted_answer_is_the_last() -> None:
    """Without deadline or enough answers the round has a shorter computation, with the same results."""
    for at in (0, 2 * SECOND):
        short, long = clock(on=9.0), clock(wanted=4, on=9.0)
        short.now = long.now = at
        [a, b] = [time.close(work(3, 1, 0, 2, steps=3), 2) for time in (short, long)]
        assert a.shares.tolist() == b.shares.tolist() and (a.reasons, a.numbers) == (b.reasons, b.numbers)
        assert dict(a.columns) == dict(b.columns) and short.now == long.now == at + 24 * SECOND
    nobody = clock().close(work(), 1)
    assert len(nobody.shares) == 0 and nobody.columns["device_idle"] == 0.0


@pytest.mark.parametrize("wanted", [0, 1])
def test_virtual_time_ends(wanted: int) -> None:
    time = clock(wanted=wanted, step=4e9)
    time.close(work(0), 1)
    with pytest.raises(RoundFailed, match="virtual time ends after 4.6e[+]09 seconds, and this is 8e[+]09"):
        time.close(work(0), 2)


def test_who_is_late_is_dropped_and_the_round_waits_until_the_deadline() -> None:
    """3 s: client 3 has done 3 / 8 of its 10 samples."""
    time = clock(deadline=3.0)
    outcome = time.close(work(3, 0, 1), 1)
    assert outcome.shares.tolist() == [0, 1, 1]
    assert outcome.reasons == {0: "late: it takes 8 virtual seconds, and system.deadline is 3"}
    assert time.columns["virtual_time"] == 3.0 and time.columns["wasted_examples"] == 3
    assert time.columns["device_idle"] == pytest.approx((0 + 2 + 1) / 9)


def test_a_round_whose_clients_are_all_in_time_does_not_wait() -> None:
    time = clock(deadline=3.0)
    time.close(work(0, 1), 1)
    assert time.columns["virtual_time"] == 2.0


def test_where_partial_work_is_kept_the_steps_that_fit_are_done() -> None:
    """4 steps in 9 s: clients 0 and 1 need 4 and 8 s, client 2 does 2 of 4 steps of 4 s, client 3 one of 8 s."""
    time = clock(deadline=9.0, partial=True)
    outcome = time.close(work(0, 1, 2, 3, steps=4), 1)
    assert outcome.shares.tolist() == [1, 1, 0.5, 0.25] and outcome.reasons == {}
    assert time.columns["virtual_time"] == 9.0 and time.columns["counted_by_speed"] == [2, 2]
    assert [row["virtual_seconds"] for row in outcome.numbers] == [4.0, 8.0, 9.0, 9.0]  # they answer at the deadline
    late = clock(deadline=7.0, partial=True).close(work(3), 1)
    assert late.numbers[0]["virtual_seconds"] == 8.0  # as long as it would take
    assert late.shares.tolist() == [0] and "late" in late.reasons[0]  # not one step fits


def test_the_first_answers_close_an_over_selected_round() -> None:
    """The two first of 1, 2, 4, 8 s: after 2 s client 2 has done half of its samples, client 3 a quarter."""
    time = clock(wanted=2)
    outcome = time.close(work(3, 2, 1, 0), 1)
    assert outcome.shares.tolist() == [0, 0, 1, 1]
    assert outcome.reasons[0] == "the round had enough answers after 2 virtual seconds"
    assert time.columns["virtual_time"] == 2.0 and time.columns["wasted_examples"] == int(5 + 2.5)


def test_of_equal_instants_the_smaller_client_is_first() -> None:
    time = VirtualTime(Devices(lambda c, d, e: Drawn(np.ones(len(c)), np.zeros(len(c), np.int64)), 1), wanted=2)
    assert time.close(work(5, 2, 9, 3), 1).shares.tolist() == [0, 1, 0, 1]


def test_who_vanishes_never_answers() -> None:
    """Without a deadline the round ends with the others; with one it waits, because the server cannot know."""
    for deadline, end in ((0.0, 2.0), (5.0, 5.0)):
        time = clock(deadline=deadline, vanish=0.999999)
        time.devices = Devices(doubling, 2, vanish=0.5, seed=next(s for s in range(99) if gone(s) == [True, False]))
        outcome = time.close(work(0, 1), 1)
        assert outcome.shares.tolist() == [0, 1] and "vanished" in outcome.reasons[0]
        assert time.columns["virtual_time"] == end
        assert outcome.numbers[1]["virtual_seconds"] == 2.0 and 0 < outcome.numbers[0]["virtual_seconds"] < 1.0


def gone(seed: int) -> list[bool]:
    """Whether clients 0 and 1 vanish."""
    return (Devices(doubling, 2, vanish=0.5, seed=seed).durations(work(0, 1), 1).vanishes >= 0).tolist()


def test_the_clock_moves_on_until_enough_devices_are_there() -> None:
    time = clock(on=1.0, off=9.0)
    time.asked = 3
    there = time.there(range(40))
    assert there is not None and len(there) >= 3
    assert (time.devices.available(np.arange(40), time.now)[there]).all()
    before = time.now - 1
    assert time.now == 0 or time.devices.available(np.arange(40), before).sum() < 3


def test_devices_that_are_never_there_together_fail_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fl_sim.grids.virtual_time.clock.TRIES", 1000)
    time = clock(on=0.001, off=1000.0)
    time.asked = 2
    with pytest.raises(RoundFailed, match="never are 2 of 2 devices there at once"):
        time.there([0, 1])


def test_a_run_goes_on_at_the_instant_of_its_last_line() -> None:
    time = clock()
    assert time.resumed({"virtual_time": 8.25}) and time.now == 8_250_000_000
    assert not clock().resumed({"round": 3})


@pytest.mark.parametrize("wanted", [0, 1])
def test_it_goes_on_at_the_same_nanosecond_where_a_line_cannot_hold_each(wanted: int) -> None:
    """From 2^51 ns (26 days) on, float64 seconds are more than half a nanosecond apart."""
    time = clock(wanted=wanted, step=1234567.890123457)
    for launch in range(40):
        line = time.close(work(0, 1), launch).columns
        again = clock()
        assert again.resumed(line) and again.now == time.now and again.now / SECOND == line["virtual_time"]
    assert time.now > 2**55


def test_times_of_launches_that_end_or_vanish() -> None:
    """3 s down, 4 s of work, 2 s up: all of it, vanished in the work, vanished in the upload."""
    before, training, after = (np.full(3, s * SECOND) for s in (3, 4, 2))
    vanishes = np.array([-1, 5 * SECOND, 8 * SECOND])
    took = Durations(before, training, after, vanishes, np.array([0, 1, 1]))
    rows = times(took, np.where(vanishes < 0, took.total, vanishes), 7 * SECOND)
    assert [row["virtual_seconds"] for row in rows] == [9.0, 5.0, 8.0]
    assert [row["virtual_down"] for row in rows] == [3.0, 3.0, 3.0]
    assert [row["virtual_up"] for row in rows] == [2.0, 0.0, 1.0]
    assert [row["started"] for row in rows] == [7.0, 7.0, 7.0]
    none = Durations(0 * before, training, 0 * after, vanishes, np.array([0, 1, 1]))
    assert times(none, none.total, None)[0] == {"virtual_seconds": 4.0, "speed_class": 0}
