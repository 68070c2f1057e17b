"""Faults of a deployment, caused in real processes: each test starts its own SuperLink and SuperNodes and ends them.

The guarantees that the tests check, and how long recovery took, are in docs/reliability.md.
"""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from experiments.deploy import keys
from experiments.deploy.local import Deployment, DeploymentOptions
from experiments.deploy.processes import PROC, marked
from experiments.deploy.server_app import parse_configs
from experiments.runs.summary import Summary
from tests.conformance.conftest import check_same, rows, simulated

ROOT = Path(__file__).parents[2]
needs_proc = pytest.mark.skipif(not PROC.exists(), reason="processes are found through /proc, which is not here")
pytestmark = [pytest.mark.slow, pytest.mark.faults, needs_proc]
BROKEN = ["digits-deploy", "--strategy", "tests.conformance.broken:Broken", "--strategy.how", "fine"]
NODE_LOST_S = 80
"""The SuperLink gives a node up 60 s after its last heartbeat."""


@contextmanager
def deployment(
    home: Path, nodes: int = 2, safe: bool = True, seconds: float = 480, **options: Any
) -> Iterator[Deployment]:
    """A deployment with nothing started yet; after ``seconds`` its processes are ended, so that the test fails."""
    deployed = Deployment(DeploymentOptions(nodes, safe, safe, (), home / "runs", 1, **options), home / "home")
    deployed.processes.env["PYTHONPATH"] = str(ROOT)  # the tests' strategies
    (home / "runs").mkdir()
    with deployed.processes:
        watchdog = threading.Timer(seconds, deployed.processes.stop)
        watchdog.start()
        try:
            yield deployed
        finally:
            watchdog.cancel()
            deployed.say("end of the test")
    assert not marked(deployed.processes.mark)


def until(true: Callable[[], Any], seconds: float = 200, pause_s: float = 0.05) -> Any:
    """Wait until ``true()`` holds; returns its value."""
    end = time.monotonic() + seconds
    while not (found := true()):
        assert time.monotonic() < end, f"not true within {seconds} s"
        time.sleep(pause_s)
    return found


def pids(deployed: Deployment, word: str) -> list[int]:
    """The deployment's processes with this word in their command."""
    found = []
    for pid in marked(deployed.processes.mark):
        try:
            if any(word in part for part in (PROC / str(pid) / "cmdline").read_text().split("\0")[:2]):
                found.append(pid)
        except OSError:
            continue
    return found


def logged(deployed: Deployment, server_round: int) -> bool:
    """Whether a run has written this round's line."""
    return any(json.loads(lines[-1])["round"] >= server_round for lines in deployed.written().values() if lines)


def run_of(deployed: Deployment, words: Sequence[str]) -> Summary:
    """The same run in simulation."""
    [config] = parse_configs([*words, "--out", str(deployed.home / "simulated")])
    return simulated(config)


def reasons(summary: Summary, server_round: int) -> dict[int, str]:
    """Client -> why it failed in a round."""
    failed = [
        row for row in rows(summary, "events") if row["event"] == "client_failed" and row["round"] == server_round
    ]
    return {row["client"]: row["reason"] for row in failed}


def test_devices_that_fail_are_named_and_their_nodes_work_on(tmp_path: Path) -> None:
    """Six ways to fail at once; in the second round each node takes part, and fails, again."""
    how = ["fine", "raises", "none", "nan", "shape", "sleeps:90", "dies"]
    with deployment(tmp_path, len(how), safe=False, timeout_s=60) as deployed:
        deployed.prepare()
        deployed.superlink()
        for n, what in enumerate(how):
            deployed.node(n, BROKEN=what)
        status, [summary] = deployed.follow(
            deployed.submit([*BROKEN, "--clients", "7", "--rounds", "2", "--failures", "tolerate:0.9"])
        )
    assert status == "finished:completed" and summary["status"] == "completed"
    for server_round in (1, 2):
        found = reasons(summary, server_round)
        assert sorted(found) == [1, 2, 3, 4, 5, 6]
        for client, words in (
            (1, "the device gives up"),
            (2, "None"),
            (3, "NaN"),
            (4, "shape"),
            (5, "no reply within 60 s"),
        ):
            assert words in found[client]


def test_devices_that_tamper_with_their_replies_are_their_own_failures(tmp_path: Path) -> None:
    """A weight of 1e18, a header of 4 TB, an array of objects, and a reply that never comes whole, all at once."""
    how = ["", "weight", "header", "objects", "half"]
    words = ["digits-deploy", "--strategy", "tests.conformance.tampering:Tampering", "--clients", "5", "--rounds", "2"]
    with deployment(tmp_path, len(how), safe=False, timeout_s=100) as deployed:
        deployed.prepare()
        deployed.superlink()
        for n, what in enumerate(how):
            deployed.node(n, TAMPER=what)
        status, [summary] = deployed.follow(deployed.submit([*words, "--failures", "tolerate:0.9"]))
    assert status == "finished:completed" and summary["status"] == "completed"
    for server_round in (1, 2):
        found = reasons(summary, server_round)
        deployed.say(str(found))
        assert sorted(found) == [1, 2, 3, 4]
        for client, why in ((1, "num-examples = 10"), (2, "4398046511104 bytes; 0 are there"), (3, "Python objects")):
            assert why in found[client]
        assert "no reply within 100 s" in found[4] or "objects are unavailable" in found[4]


def test_a_killed_supernode_comes_back_and_the_run_completes(tmp_path: Path) -> None:
    """The node is killed while it trains, and started again, as systemd does, until the SuperLink accepts it.

    For a while the SuperLink refuses it, because it takes the killed process to be alive.
    """
    with deployment(tmp_path) as deployed:
        deployed.prepare()
        deployed.superlink()
        deployed.register(deployed.names)
        deployed.node(0)
        deployed.node(1, BROKEN="sleeps:600")
        number = deployed.submit([*BROKEN, "--clients", "2", "--rounds", "6", "--failures", "tolerate:0.5"])
        until((deployed.home / "node-1" / "state" / "sleeping").exists)
        deployed.processes.running["node-1"].kill()
        ended = threading.Event()

        def restart() -> None:
            while not ended.wait(1):
                if deployed.processes.running["node-1"].poll() is not None:
                    deployed.node(1)

        systemd = threading.Thread(target=restart)
        systemd.start()
        try:
            status, [summary] = deployed.follow(number)
        finally:
            ended.set()
            systemd.join()
    assert status == "finished:completed" and summary["status"] == "completed"
    assert reasons(summary, 1)[1].startswith("the node went away")
    assert rows(summary, "rounds")[-1]["completed"] == 2


def test_a_killed_server_goes_on_where_it_was(tmp_path: Path) -> None:
    """SIGKILL for the ServerApp; a run on the same nodes resumes it with the devices' states: the same result."""
    words = ["digits-deploy", "--clients", "2", "--rounds", "3", "--strategy", "tests.conformance.stateful:Remembers"]
    with deployment(tmp_path) as deployed:
        deployed.up()
        number = deployed.submit(words)
        until(lambda: logged(deployed, 1))
        [server] = pids(deployed, "flwr-serverapp")
        os.kill(server, signal.SIGKILL)
        [folder] = deployed.written()
        status = until(lambda: (status := deployed.status(number)).startswith("finished") and status, pause_s=3)
        deployed.say(f"Flower has seen it: {status}")
        assert status == "finished:failed"
        status, [summary] = deployed.follow(deployed.submit(["--resume", str(folder)]))
    assert status == "finished:completed" and summary["run_dir"] == str(folder)
    check_same(summary, run_of(deployed, words))


def test_a_killed_superlink_loses_nothing_with_a_database(tmp_path: Path) -> None:
    words = ["digits-deploy", "--clients", "2", "--rounds", "2"]
    with deployment(tmp_path, database=str(tmp_path / "link.sqlite")) as deployed:
        deployed.up()
        number = deployed.submit(words)
        until(lambda: logged(deployed, 0))
        deployed.processes.running["superlink"].kill()
        deployed.processes.running["superlink"].wait()
        deployed.superlink()
        status, [summary] = deployed.follow(number)
    assert status == "finished:completed" and summary["clients_failed"] == 0
    check_same(summary, run_of(deployed, words))


def test_nodes_that_may_not_join_learn_it_within_seconds(tmp_path: Path) -> None:
    """An unregistered key, another certificate authority, no TLS where it is needed, TLS where there is none."""
    with deployment(tmp_path) as deployed, deployment(tmp_path / "open", safe=False) as other:
        deployed.prepare()
        deployed.superlink()
        other.prepare()
        other.superlink()
        keys.certificates(tmp_path / "other", ["127.0.0.1"])
        keys.node_key(tmp_path / "other", "node-0")
        for link, why in (
            (deployed.link, "does not know this node's key"),
            (replace(deployed.link, keys=tmp_path / "other"), "does not vouch for"),
            (replace(deployed.link, tls=False, auth=False), "speaks TLS: give --root-certificates"),
            (replace(deployed.link, port=other.link.port), "speaks no TLS"),
        ):
            start = time.monotonic()
            words = [sys.executable, "-m", "clients.node", *link.supernode(0, 1, deployed.node_ports[0])[1:]]
            done = subprocess.run(
                words, cwd=ROOT, env=deployed.processes.env, capture_output=True, text=True, timeout=60
            )
            deployed.say(f"{time.monotonic() - start:.1f} s: {done.stderr.strip()}")
            assert done.returncode == 2 and why in done.stderr, done.stdout + done.stderr


@contextmanager
def cable(name: str, subnet: str) -> Iterator[None]:
    """A network namespace ``name`` whose only way out is a virtual cable to ``subnet``.1 in this machine's namespace.

    The namespace and both ends of the cable are removed afterwards.
    """
    words = [
        f"ip netns add {name}",
        f"ip link add {name} type veth peer name inside netns {name}",
        f"ip addr add {subnet}.1/24 dev {name}",
        f"ip link set {name} up",
        f"ip -n {name} addr add {subnet}.2/24 dev inside",
        f"ip -n {name} link set inside up",
        f"ip -n {name} link set lo up",
    ]
    try:
        for line in words:
            done = subprocess.run(line.split(), capture_output=True, text=True)
            if done.returncode:
                pytest.skip(f"this machine allows no network namespaces: {line}: {done.stderr.strip()}")
        yield
    finally:
        subprocess.run(["ip", "link", "del", name], capture_output=True)
        subprocess.run(["ip", "netns", "del", name], capture_output=True)


@pytest.mark.parametrize(("away_s", "failed"), [(15, False), (NODE_LOST_S, True)], ids=["shorter", "longer"])
def test_a_cut_cable_that_is_plugged_in_again(away_s: int, failed: bool, tmp_path: Path) -> None:
    """The cable is cut within a round, for less and for more time than the SuperLink waits for a heartbeat."""
    name, subnet = f"fls{os.getpid() % 10**6}", f"10.{200 + os.getpid() % 50}.{os.getpid() // 50 % 250}"
    with cable(name, subnet), deployment(tmp_path, timeout_s=away_s + 60) as deployed:
        deployed.link = replace(deployed.link, host=f"{subnet}.1")
        deployed.prepare()
        deployed.superlink()
        deployed.register(deployed.names)
        deployed.node(0, BROKEN="sleeps:5")
        deployed.node(1, "ip", "netns", "exec", name, BROKEN="sleeps:5")
        number = deployed.submit(
            [*BROKEN, "--clients", "2", "--rounds", "8" if failed else "2", "--failures", "tolerate:0.5"]
        )
        until((deployed.home / "node-1" / "state" / "sleeping").exists)
        subprocess.run(["ip", "-n", name, "link", "set", "inside", "down"], check=True)
        cut = time.monotonic()
        time.sleep(away_s)
        subprocess.run(["ip", "-n", name, "link", "set", "inside", "up"], check=True)
        deployed.say(f"the cable was out for {time.monotonic() - cut:.1f} s")
        status, [summary] = deployed.follow(number)
    assert status == "finished:completed" and summary["status"] == "completed"
    assert (summary["clients_failed"] > 0) == failed and rows(summary, "rounds")[-1]["completed"] == 2
