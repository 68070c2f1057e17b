"""The processes of a silo: what their shared memory leaves behind, which is nothing."""

import gc
import os
from pathlib import Path
from typing import Any

import pytest

from clients.silo.many_processes import ManyProcesses
from clients.silo.silo_options import Silo, has_shared_memory
from fl_sim.errors import ConfigError
from tests.clients.silo.test_many_processes import trained, world

pytestmark = pytest.mark.skipif(not has_shared_memory(), reason="only Linux has the memory")


def held() -> tuple[int, list[str], bool]:
    """(handles of this process, files in the folder of named memory, whether this process has memory for sums)."""
    gc.collect()
    maps, shared = Path("/proc/self/maps").read_text(), Path("/dev/shm")
    return len(os.listdir("/proc/self/fd")), sorted(map(str, shared.iterdir())), "silo-sums" in maps


def test_the_ranks_have_the_memory_their_parent_has_not_and_nothing_is_left() -> None:
    setup, before = world(), held()
    silos = [ManyProcesses(Silo(2, 4)) for _ in range(2)]  # at once, as two runs would
    try:
        for silo in silos:
            for rank in silo._of(setup.loss).ranks:
                assert "silo-sums" in Path(f"/proc/{rank.pid}/maps").read_text()
        assert held()[1:] == before[1:]
    finally:
        for silo in silos:
            silo.close()
    assert held() == before


def test_too_little_memory_is_the_clients_failure_and_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    setup, before = world(), held()

    def full(*given: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full)
    client = trained(setup, Silo(2, 4), 1).clients[0]
    assert ConfigError.__name__ in client.reason and "use --silo.wire sockets" in client.reason
    assert held() == before
    assert not trained(setup, Silo(2, 4, wire="sockets"), 1).clients[0].reason
