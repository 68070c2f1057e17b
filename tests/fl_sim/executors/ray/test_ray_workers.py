"""Workers that are shut down while results of theirs are still referenced."""

import pytest

from fl_sim.executors.ray.options import Ray
from fl_sim.executors.ray.ray_workers import shut_down_workers, workers_for

pytestmark = [pytest.mark.slow, pytest.mark.ray]


def test_cancelling_after_ray_has_ended_does_not_start_it_again() -> None:
    """A traceback may keep a failed round alive until then; any call of Ray would start or join a cluster."""
    import ray

    workers = workers_for(Ray(num_workers=1), 1, 2**27)
    [handle] = workers.handles.values()
    future = handle.actor.facts.remote()
    shut_down_workers()
    assert not ray.is_initialized()
    workers.cancel(future)
    assert not ray.is_initialized()
