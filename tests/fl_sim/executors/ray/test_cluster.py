"""Two Ray nodes on one machine, started with Ray's cluster utility; one is lost in the middle of a round."""

import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import pytest

from experiments.run import run
from fl_sim import Callback, RoundFailed, Run, from_arrays
from fl_sim.engines.results import BlockResult
from fl_sim.executors.ray.executor import max_workers, shut_down_workers
from fl_sim.executors.ray.options import Ray
from strategies.fedavg import FedAvg

pytestmark = [pytest.mark.slow, pytest.mark.ray]

DRAW = np.random.default_rng(0)
X = DRAW.normal(size=(240, 5)).astype(np.float32)
TASK = from_arrays(X, (X @ DRAW.normal(size=(5, 3))).argmax(1), clients=np.arange(240) % 24)
SETTINGS: dict[str, Any] = {"task": TASK, "model": "mlp", "rounds": 4, "block_size": 2}
QUICK = {
    "health_check_initial_delay_ms": 500,
    "health_check_period_ms": 500,
    "health_check_timeout_ms": 500,
    "health_check_failure_threshold": 3,
}
NODE: dict[str, Any] = {
    "num_cpus": 1,
    "object_store_memory": 100 * 2**20,
    "include_dashboard": False,
    "include_log_monitor": False,
}


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    """A head and one more node, with room for one worker each; a lost node is noticed within seconds.

    Its address is not written where ``ray.init()`` of other processes finds it: Flower's simulation in a test beside
    this one would join the cluster, and end with it.
    """
    from ray.cluster_utils import Cluster

    shut_down_workers()
    with patch("ray._private.utils.write_ray_address"):
        cluster = Cluster(initialize_head=True, head_node_args={**NODE, "no_monitor": True, "_system_config": QUICK})
    cluster.add_node(**NODE)
    try:
        yield cluster
    finally:
        shut_down_workers()
        cluster.shutdown()


class Lose(Callback):
    """Kills the processes of a node after the first block of round 2."""

    def __init__(self, cluster: Any) -> None:
        self.cluster, self.lost = cluster, False

    def on_block(self, run: Run, result: BlockResult) -> None:
        if run.round == 2 and not self.lost:
            self.lost = True
            [node] = self.cluster.worker_nodes
            self.cluster.remove_node(node, allow_graceful=False)


@dataclass
class Slow(FedAvg):
    """FedAvg whose clients take 50 ms longer."""

    def local_update(self, *args: Any) -> Any:
        time.sleep(0.05)
        return super().local_update(*args)


def test_a_node_lost_during_a_round_changes_no_bit(cluster: Any, tmp_path: Path) -> None:
    import sys

    from ray import cloudpickle

    cloudpickle.register_pickle_by_value(sys.modules[__name__])
    plain = run(strategy=FedAvg(), engine="loop", out=str(tmp_path), **SETTINGS)
    on_cluster = {
        "engine": "ray",
        "ray": {"address": cluster.address, "engine": "loop"},
        "out": str(tmp_path),
        **SETTINGS,
    }
    assert max_workers(Ray(address=cluster.address)) == 2 and max_workers(Ray(address=cluster.address, num_cpus=2)) == 1
    with pytest.raises(RoundFailed, match="this process is connected to Ray at"):
        run(strategy=FedAvg(), **{**on_cluster, "ray": {"address": "192.0.2.1:6379"}})
    lose = Lose(cluster)
    result = run(strategy=Slow(), callbacks=[lose], **on_cluster)
    assert lose.lost and result.summary["digest"] == plain.summary["digest"]
    facts = result.summary["workers"]
    assert (facts["num_workers"], facts["nodes"], facts["restarts"]) == (2, 2, 1)
    events = result.log.events
    [lost] = events[events["event"] == "worker_lost"].to_dict("records")
    started = events[events["event"] == "worker_started"]
    assert lost["node"] in set(started["node"]) and started["node"].nunique() == 2
    assert lost["round"] in (
        2,
        3,
    )  # the results of its worker may still arrive: then the loss is noticed in the next round
    again = run(strategy=FedAvg(), **on_cluster)  # the one node that is left
    assert again.summary["digest"] == plain.summary["digest"] and again.summary["workers"]["nodes"] == 1


def test_an_unreachable_cluster_is_an_error_with_its_address(tmp_path: Path) -> None:
    shut_down_workers()
    with pytest.raises(RoundFailed, match=r"ray.address = '127.0.0.1:9': cannot be reached"):
        run(strategy=FedAvg(), engine="ray", ray={"address": "127.0.0.1:9"}, out=str(tmp_path), **SETTINGS)
