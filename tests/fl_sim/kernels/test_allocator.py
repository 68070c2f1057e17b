"""glibc keeps large buffers: allocating a freed buffer again causes no page faults."""

import os
import subprocess
import sys

import pytest

CODE = """
import resource, torch
import fl_sim.learning.loss  # as in a run: whether glibc can keep a buffer depends on what lies around it
from fl_sim.kernels import allocator
allocator.keep_large_buffers()
allocator.keep_large_buffers()
def faults(): return resource.getrusage(resource.RUSAGE_SELF).ru_minflt
def of_three():
    before = faults()
    for _ in range(3): torch.zeros(10_000_000)
    return faults() - before
print(min(of_three() for _ in range(6)))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="glibc")
@pytest.mark.parametrize(
    "own, kept", [({}, True), ({"MALLOC_TRIM_THRESHOLD_": "131072"}, False)], ids=["default", "set by the user"]
)
def test_large_buffers_stay(own: dict[str, str], kept: bool) -> None:
    """Forty megabytes are 9766 pages (fewer where pages are huge), and more than glibc ever keeps by itself."""
    environ = {k: v for k, v in os.environ.items() if not k.startswith("MALLOC_") and k != "GLIBC_TUNABLES"} | own
    done = subprocess.run([sys.executable, "-c", CODE], capture_output=True, text=True, env=environ, check=True)
    assert (int(done.stdout) < 10) == kept
