"""What died of a Ray that was started here is named before Ray is called again, and the rest of it is ended."""

import os
import signal
import subprocess
import sys
import time
from types import SimpleNamespace
from typing import Any

import pytest

from fl_sim.errors import RoundFailed
from fl_sim.executors.ray import guardian, local_processes
from fl_sim.executors.ray.local_processes import check_alive, end_processes, has_died, processes_of_ray


@pytest.fixture
def node(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """A Ray of this process whose processes are in ``dead`` once they have ended."""
    made = SimpleNamespace(dead=[], get_logs_dir_path=lambda: "session/logs")
    made.dead_processes = lambda: made.dead
    made.worker = SimpleNamespace(connected=True)
    module = SimpleNamespace(_global_node=made, shutdown=None, global_worker=made.worker)
    monkeypatch.setitem(sys.modules, "ray._private.worker", module)
    monkeypatch.setattr(local_processes.importlib, "import_module", lambda name: sys.modules[name])
    monkeypatch.setattr(local_processes, "_died", [])
    monkeypatch.setattr(local_processes, "will_crash", lambda library: None)
    return made


def test_a_process_that_died_is_named_and_what_it_leaves_is_ended(node: SimpleNamespace) -> None:
    handler = signal.getsignal(signal.SIGTERM)
    with processes_of_ray():
        signal.signal(signal.SIGTERM, signal.SIG_DFL)  # as ray.init does
        child = subprocess.Popen([sys.executable, "-S", "-c", "import time; time.sleep(60)"])
    assert signal.getsignal(signal.SIGTERM) is handler and not any(name in os.environ for name in local_processes.MARKS)
    assert not has_died()
    check_alive()
    node.dead = [("raylet", SimpleNamespace(returncode=-9))]
    with pytest.raises(RoundFailed, match="Ray's process raylet was killed by signal 9; its logs are in session/logs"):
        check_alive()
    assert child.wait(60) == -signal.SIGKILL and has_died()


def test_processes_that_were_asked_to_end_have_not_died(node: SimpleNamespace) -> None:
    """While ``ray.shutdown()`` ends them, the watchdog looks at them: it would take each end of Ray for a crash."""
    node.dead = [("raylet", SimpleNamespace(returncode=0))]
    node.worker.connected = False
    assert not has_died()
    check_alive()


def test_a_table_of_processes_that_changes_while_it_is_read_is_read_again_later(node: SimpleNamespace) -> None:
    def changed() -> None:
        raise RuntimeError("dictionary changed size during iteration")

    node.dead_processes = changed
    assert not has_died()


def test_a_guardian_ends_a_run_whose_process_is_gone(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guardian, "LOOK_S", 0.02)
    for gone in (True, False):
        told = tmp_path / f"{gone}"
        owner = os.fork()
        if owner == 0:
            with guardian.guarded(lambda told=told: told.write_text("abandoned")):  # type: ignore[misc]
                if gone:
                    os.kill(os.getpid(), signal.SIGKILL)
            os._exit(0)
        os.waitpid(owner, 0)
        until = time.monotonic() + 60 * gone
        while not told.exists() and time.monotonic() < until:
            time.sleep(0.02)
        assert told.exists() == gone


def test_a_process_that_ray_did_not_start_is_not_ended() -> None:
    child = subprocess.Popen([sys.executable, "-S", "-c", "import time; time.sleep(60)"])
    try:
        end_processes()
        with pytest.raises(subprocess.TimeoutExpired):
            child.wait(0.2)
    finally:
        child.kill()
        child.wait()
