"""Starting Ray on this machine, on a Ray that only counts how often it is started."""

from typing import Any

import pytest

from fl_sim.executors.ray import cluster

SLOW = "The current node timed out during startup. This could happen because some of the raylet failed to startup."


class Starts:
    """Stands for Ray: ``init`` fails with these messages in turn, then succeeds."""

    def __init__(self, *errors: str) -> None:
        self.errors, self.calls = list(errors), 0

    def init(self, *args: Any, **options: Any) -> None:
        self.calls += 1
        if self.errors:
            raise RuntimeError(self.errors.pop(0))


@pytest.mark.parametrize(
    "errors, calls, fails",
    [([SLOW, SLOW], 3, ""), ([SLOW] * 5, 5, "timed out"), (["no memory"], 1, "no memory")],
)
def test_a_ray_that_is_too_slow_to_start_is_started_again(
    errors: list[str], calls: int, fails: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    ray, ended = Starts(*errors), list[int]()
    monkeypatch.setattr(cluster, "ray", lambda: ray)
    monkeypatch.setattr(cluster, "end_processes", lambda: ended.append(ray.calls))
    if fails:
        with pytest.raises(RuntimeError, match=fails):
            cluster._start(num_cpus=1)
    else:
        cluster._start(num_cpus=1)
    assert ray.calls == calls and ended == list(range(1, calls))  # before each further start
