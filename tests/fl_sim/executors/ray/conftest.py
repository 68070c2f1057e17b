"""Fixtures for the tests that start Ray's workers."""

from collections.abc import Iterator

import pytest


@pytest.fixture(scope="module")
def ray_workers(request: pytest.FixtureRequest) -> Iterator[None]:
    """Workers receive the classes of the test's module by value, as those of a notebook, and end with the module."""
    from ray import cloudpickle

    from fl_sim.executors.ray.executor import shut_down_workers

    cloudpickle.register_pickle_by_value(request.module)
    yield
    cloudpickle.unregister_pickle_by_value(request.module)
    shut_down_workers()
