"""The attacks of ``experiments.attacks.ends``: commands, what is done to them, and how they must end."""

import signal
from dataclasses import dataclass


@dataclass(frozen=True)
class Attack:
    """One command and its end."""

    name: str
    words: str
    """Of the command ``python -m experiments.run``."""
    code: int
    """The documented exit code."""
    status: str = ""
    """Of the summary; empty: there need be none."""
    event: str = ""
    """An event that the log must have."""
    signal: int = 0
    """Sent to the command, or to ``to``; 0: none."""
    at: str = "round 5"
    """When it is sent: after a round, once a file exists, or "" after half a second."""
    to: str = ""
    """A part of the title of the process of Ray that gets it; empty: the command."""
    file_bytes: int | None = None
    """Largest size of a file, which stands for a full disk."""
    stdout: str = "/dev/null"
    own_code: bool = False
    """Whether stderr shows the traceback of the user's own code."""
    may_lose: int = 0
    """Finished rounds that may lack a checkpoint."""
    wait_s: float = 0.0
    """Seconds after the end until no process may be left."""


STRATEGIES = '''"""Strategies that end a run, or the process that trains a client."""
import os
import time
from dataclasses import dataclass
from pathlib import Path
from strategies.fedavg import FedAvg

class Odd(BaseException):
    """No Exception."""

@dataclass
class Raises(FedAvg):
    def gradient(self, *_):
        raise Odd("in a client")

@dataclass
class Leaves(FedAvg):
    def gradient(self, *_):
        os._exit(0)

@dataclass
class ServerRaises(FedAvg):
    def server_step(self, model, pooled, server_round):
        if server_round == 3:
            raise Odd("in the strategy")
        return pooled

@dataclass
class ServerLeaves(ServerRaises):
    def server_step(self, model, pooled, server_round):
        os._exit(0)

@dataclass
class Hangs(FedAvg):
    """Client 1 hangs where its batches are drawn."""
    def streams(self, sizes, local, draw):
        if draw.client == 1:
            time.sleep(1000)
        return super().streams(sizes, local, draw)

@dataclass
class Slow(FedAvg):
    """Is built slowly, before round 0."""
    def __post_init__(self):
        Path("building").touch()
        time.sleep(5)
'''
"""The module ``attackers`` in the folder where the commands run."""

FEW = "--model lr --clients 4 --block_size 2 --quiet"
LONG = f"{FEW} --rounds 100000 --checkpoint_every 100000"
SHORT = f"{FEW} --rounds 4"
RAY = "--engine ray --ray.num_workers 1 --ray.engine loop"
NAMED = {130: signal.SIGINT, 143: signal.SIGTERM, 129: signal.SIGHUP}
ENGINES = {"loop": "--engine loop", "vmap": "--engine vmap", "Ray": RAY}
OWN = "--strategy attackers"
LIMIT = "--client_timeout 6"

ATTACKS = [
    *(
        Attack(f"{number.name} in a round, {name}", f"{LONG} {engine}", code, "stopped", signal=number)
        for name, engine in ENGINES.items()
        for code, number in NAMED.items()
    ),
    *(Attack(f"{number.name} while it imports", SHORT, code, signal=number, at="") for code, number in NAMED.items()),
    *(
        Attack(f"{number.name} before round 0", f"{SHORT} {OWN}:Slow", code, signal=number, at="file building")
        for code, number in NAMED.items()
    ),
    *(
        Attack(f"a client raises a BaseException, {name}", f"{SHORT} {OWN}:Raises {engine}", 1, "failed", own_code=True)
        for name, engine in ENGINES.items()
    ),
    Attack("a strategy raises a BaseException", f"{SHORT} {OWN}:ServerRaises", 1, "failed", own_code=True),
    Attack("os._exit(0) in a strategy", f"{SHORT} {OWN}:ServerLeaves", 1, "failed", own_code=True),
    *(
        Attack(f"os._exit(0) in a client, {name}", f"{SHORT} {OWN}:Leaves {engine}", 1, "failed", own_code=True)
        for name, engine in ENGINES.items()
    ),
    *(
        Attack(
            f"a client hangs, {name}",
            f"{SHORT} {OWN}:Hangs {engine} {LIMIT} --failures tolerate:0.25 --rounds 1".replace("--rounds 4 ", ""),
            0,
            "completed",
            "client_timeout",
        )
        for name, engine in ENGINES.items()
    ),
    Attack("a client hangs, none may fail", f"{SHORT} {OWN}:Hangs {LIMIT}", 1, "failed", "client_timeout"),
    Attack("no room for the log", f"{FEW} --rounds 40 --checkpoint_every 1", 1, "failed", file_bytes=8000, may_lose=40),
    Attack("no room for a run folder", SHORT, 1, file_bytes=0),
    Attack("no room for the curves", SHORT.replace(" --quiet", ""), 0, "completed", file_bytes=12000),
    Attack("no room for what is printed", f"{SHORT} --json", 1, "completed", stdout="/dev/full"),
    *(
        Attack(
            f"Ray's {to} is killed, attempt {attempt}",
            f"{LONG} {RAY}",
            1,
            "failed",
            "run_failed",
            signal=signal.SIGKILL,
            to=to,
            may_lose=100000,  # none, unless Ray's library was in the middle of a call
            wait_s=20.0,
        )
        for to in ("gcs_server", "raylet")
        for attempt in (1, 2)
    ),
]
