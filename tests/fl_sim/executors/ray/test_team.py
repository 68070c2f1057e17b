"""Workers that are let go while somebody still holds what they were asked for."""

import pytest

from fl_sim.executors.ray.options import Ray
from fl_sim.executors.ray.team import crew_for, dismiss

pytestmark = [pytest.mark.slow, pytest.mark.ray]


def test_work_dropped_after_its_ray_has_ended_starts_no_other() -> None:
    """As when a traceback keeps a failed round alive: Ray, asked anything when it is not there, starts or joins whatever it finds."""
    import ray

    crew = crew_for(Ray(num_workers=1), 1, 2**27)
    [hand] = crew.hands.values()
    ticket = hand.actor.facts.remote()
    dismiss()
    assert not ray.is_initialized()
    crew.cancel(ticket)
    assert not ray.is_initialized()
