"""An asynchronous run has the same bits on any number of Ray's workers."""

import pytest

from fl_sim import tree
from fl_sim.executors.ray.executor import RayExecutor
from fl_sim.executors.ray.options import Ray
from strategies.fedbuff import FedBuff
from tests.fl_sim.rounds.asynchronous.small_async_federation import grid_of, model_of, run


@pytest.mark.slow
@pytest.mark.ray
@pytest.mark.parametrize("workers", [1, 2])
def test_the_number_of_workers_changes_no_bit(workers: int) -> None:
    """Waves of several models and learning rates, cut into blocks of three."""
    settings = {"local.lr_schedule": "cosine"}
    alone = run(FedBuff(buffer=2, beta=0.5), 6, 6, "vmap", settings=settings)
    learner = grid_of(FedBuff()).learner
    assert learner is not None
    executor = RayExecutor(learner, "vmap", 0, Ray(num_workers=workers), 1)
    shared = run(FedBuff(buffer=2, beta=0.5), 6, 6, "vmap", settings=settings, executor=executor)
    executor.close()
    assert tree.digest(model_of(shared)) == tree.digest(model_of(alone))
