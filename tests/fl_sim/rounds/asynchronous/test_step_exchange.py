"""What a launch of an asynchronous run adds to its client's row."""

from typing import Any, cast

from fl_sim.grids.virtual_time.event_clock import Flight
from fl_sim.population.devices import SECOND
from fl_sim.rounds.asynchronous.step_exchange import Launched, facts_of

NO_MESSAGE = cast(Any, None)


def test_the_row_of_a_launch_has_its_start_its_duration_and_the_time_of_its_messages() -> None:
    flight = Flight(3, 5, 2 * SECOND, 9 * SECOND, False, 1, SECOND // 2, SECOND)
    found = facts_of(Launched(flight, 4, NO_MESSAGE, "", 0), 2)
    times = {"started": 2.0, "virtual_seconds": 7.0, "virtual_down": 0.5, "virtual_up": 1.0}
    assert found == {"staleness": 2, "speed_class": 1, **times}
    plain = facts_of(Launched(flight._replace(down=0, up=0), 4, NO_MESSAGE, "", 0), 2)
    assert plain == {k: v for k, v in found.items() if k not in ("virtual_down", "virtual_up")}
