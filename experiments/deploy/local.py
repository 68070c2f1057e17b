"""A deployment on this machine, from nothing to the run folder and back to nothing. No paper.

Real processes, as on machines of their own: a SuperLink, a SuperNode a client, each with a home of its own in a temporary
folder. Each command is printed as a person would type it. What ``flwr run`` exits with says nothing; the run's
status, as ``flwr ls`` tells it, and the summaries that the ServerApp leaves do.
"""

import json
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from experiments.deploy import keys
from experiments.deploy.bundle import write_bundle
from experiments.deploy.commands import CONNECTION, ENVIRONMENT, Link, exports, run, shown
from experiments.deploy.processes import Processes
from fl_sim import RoundFailed

START_S, LOOK_S = 60.0, 20.0
"""How long the SuperLink may take to listen; pause between two looks at the run's status."""


@dataclass(frozen=True)
class Wanted:
    """What ``up`` was asked for."""

    nodes: int
    tls: bool
    auth: bool
    args: Sequence[str]
    """Words as after ``python -m experiments.run``."""
    out: Path
    """Folder of run folders, absolute."""
    runs: int
    """How many runs the words ask for."""
    node_timeout_s: float = 120.0
    timeout_s: float = 3600.0
    data: str = ""
    """FL_SIM_DATA of all processes; empty: as it is here."""
    database: str = ""
    """A file in which the SuperLink keeps what it knows, so that it may die; empty: none."""


class Deployment:
    """One deployment under way, in the folder ``home``."""

    def __init__(self, wanted: Wanted, home: Path) -> None:
        self.wanted, self.home = wanted, home
        ports = free_ports(wanted.nodes + 1)
        self.link = Link("127.0.0.1", ports[0], wanted.tls, wanted.auth, home / "keys", wanted.database)
        self.node_ports = ports[1:]
        self.report, self.app = home / "report.jsonl", home / "app"
        env = os.environ | ENVIRONMENT | {"FLWR_HOME": str(home / "operator"), "PYTHONUNBUFFERED": "1"}
        env["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), env.get("PATH", "")])
        env |= {"FL_SIM_PATH": os.pathsep.join(filter(None, [os.getcwd(), os.environ.get("FL_SIM_PATH", "")]))}
        env |= {"OMP_NUM_THREADS": "1"} | ({"FL_SIM_DATA": wanted.data} if wanted.data else {})
        (home / "logs").mkdir(parents=True)
        self.processes = Processes(home / "logs", env)
        self.start = time.monotonic()
        self.reported = 0
        """Summaries that were there before the run that was started last."""
        self.logged: Iterator[list[str]] = iter(())
        """Lines of its round logs, as they come."""

    def say(self, text: str) -> None:
        """A line for the person watching."""
        print(f"[{time.monotonic() - self.start:6.1f} s] {text}", flush=True)

    def command(self, where: str, words: Sequence[str]) -> None:
        """Show a command before it is run."""
        self.say(f"{where}$ {shown(words)}")

    def flwr(self, words: Sequence[str], show: bool = True) -> dict[str, Any]:
        """A ``flwr`` command's answer. Raises RoundFailed with what it says where it fails."""
        if show:
            self.command("operator", words)
        done = subprocess.run(
            [*words, "--format", "json"], cwd=self.app, env=self.processes.env, capture_output=True, text=True
        )
        try:
            answer: dict[str, Any] = json.loads(done.stdout)
        except ValueError:
            answer = {}
        if done.returncode or not answer.get("success", True) or not answer:
            raise RoundFailed(f"{shown(words)}: {answer.get('error-message') or (done.stdout + done.stderr).strip()}")
        return answer

    # Up --------------------------------------------------------------------------------------------------------------

    def up(self) -> None:
        """Keys, SuperLink, registration, SuperNodes. Raises RoundFailed where something does not come up."""
        self.prepare()
        self.superlink()
        self.register(self.names)
        for n in range(self.wanted.nodes):
            self.node(n)

    @property
    def names(self) -> list[str]:
        """The nodes that have keys."""
        return [f"node-{n}" for n in range(self.wanted.nodes)] if self.wanted.auth else []

    def prepare(self) -> None:
        """Folders, the app, keys."""
        wanted, link = self.wanted, self.link
        self.say(f"{wanted.nodes} nodes in {self.home}; on every machine: {exports()}")
        for folder in ("operator", "superlink", *(f"node-{n}" for n in range(wanted.nodes))):
            (self.home / folder).mkdir()
        write_bundle(self.app)
        if wanted.tls:
            self.say(
                f"operator$ python -m experiments.deploy keys --out {link.keys} --hosts {','.join([link.host, *self.names])}"
            )
            keys.certificates(Path(link.keys), [link.host])
        for name in self.names:
            keys.node_key(Path(link.keys), name)
        (self.home / "operator" / "config.toml").write_text(link.connection(), encoding="utf-8")

    def superlink(self) -> None:
        """Start the server and wait for it; with a database a second time too, once it was killed."""
        words = self.link.superlink(bind=self.link.host)
        self.command("server", words)
        self.processes.start("superlink", words, self.home / "superlink", FLWR_HOME=str(self.home / "superlink"))
        self.listening()
        if self.link.database and "superexec" not in self.processes.running:
            words = self.link.superexec()
            self.command("server", words)
            self.processes.start("superexec", words, self.home / "superlink", FLWR_HOME=str(self.home / "superlink"))

    def node(self, n: int, *before: str, **env: str) -> None:
        """Start device ``n``, or start it again; ``before`` are words before its command."""
        words, own = self.link.supernode(n, self.wanted.nodes, self.node_ports[n]), self.home / f"node-{n}"
        self.command(f"device {n}", words)
        self.processes.start(
            f"node-{n}", [*before, *words], own, **{"FLWR_HOME": str(own), "FL_SIM_STATE": str(own / "state"), **env}
        )

    def listening(self) -> None:
        """Wait until the SuperLink takes connections."""
        end = time.monotonic() + START_S
        while time.monotonic() < end:
            self.check_superlink()
            with socket.socket() as probe:
                if probe.connect_ex((self.link.host, self.link.port)) == 0:
                    return
            time.sleep(0.1)
        raise RoundFailed(f"the SuperLink does not listen after {START_S:g} s\n{self.processes.tail('superlink')}")

    def register(self, names: Sequence[str]) -> None:
        """Make the nodes' keys known, all at once."""
        waiting = {}
        for name in names:
            words = self.link.register(name)
            self.command("operator", words)
            waiting[f"register-{name}"] = self.processes.start(f"register-{name}", words, self.app)
        for name, process in waiting.items():
            if process.wait():
                raise RoundFailed(f"{name}: {self.processes.tail(name)}")
            del self.processes.running[name]

    def check_superlink(self) -> None:
        """Raise RoundFailed where the SuperLink has ended."""
        if "superlink" in (dead := self.processes.dead()):
            raise RoundFailed(f"the SuperLink ended with code {dead['superlink']}\n{self.processes.tail('superlink')}")

    # Run -------------------------------------------------------------------------------------------------------------

    def submit(self, words: Sequence[str]) -> str:
        """Start a run of these words; returns Flower's number of it."""
        args = shown([*words, "--out", str(self.wanted.out)])
        fixed: dict[str, str | float] = {"report": str(self.report), "node-timeout-s": self.wanted.node_timeout_s}
        fixed["timeout-s"] = self.wanted.timeout_s
        self.reported, self.logged = len(self.summaries()), self.rows(self.written())
        return str(self.flwr(run(args, **fixed))["run-id"])

    def follow(self, number: str, runs: int = 1) -> tuple[str, list[dict[str, Any]]]:
        """Follow the run that was started last to its end: (Flower's status, the summaries that its ServerApp left)."""
        status, looked, mourned = "", time.monotonic(), set[int]()
        while not status.startswith("finished"):
            time.sleep(0.2)
            self.check_superlink()
            for name, code in self.processes.dead().items():
                if (pid := self.processes.running[name].pid) not in mourned:
                    mourned.add(pid)
                    self.say(f"{name} ended with code {code}\n{self.processes.tail(name, 5)}")
            for line in next(self.logged):
                self.say(line)
            if len(self.summaries()) - self.reported >= runs or time.monotonic() - looked > LOOK_S:
                status, looked = self.status(number), time.monotonic()
        for line in next(self.logged):
            self.say(line)
        return status, self.summaries()[self.reported :]

    def status(self, number: str) -> str:
        """The run's status, as Flower tells it: ``running``, ``finished:completed`` ..."""
        [found] = self.flwr(["flwr", "ls", CONNECTION, "--run-id", number], show=False)["runs"]
        return str(found["status"])

    def summaries(self) -> list[dict[str, Any]]:
        """What the ServerApp has left so far."""
        text = self.report.read_text(encoding="utf-8") if self.report.exists() else ""
        return [json.loads(line) for line in text.splitlines(keepends=True) if line.endswith("\n")]

    def written(self) -> dict[Path, list[str]]:
        """The whole lines of each round log in the folder of runs."""
        logs = [folder / "rounds.jsonl" for folder in sorted(run_folders(self.wanted.out))]
        texts = {log.parent: log.read_text(encoding="utf-8") if log.exists() else "" for log in logs}
        return {
            folder: [line for line in text.splitlines(keepends=True) if line.endswith("\n")]
            for folder, text in texts.items()
        }

    def rows(self, before: Mapping[Path, list[str]]) -> Iterator[list[str]]:
        """At each step: a line for each round that has been written since the last."""
        seen = {folder: len(lines) for folder, lines in before.items()}
        while True:
            said = []
            for folder, lines in self.written().items():
                for row in map(json.loads, lines[seen.get(folder, 0) :]):
                    numbers = {
                        k: row.get(k) for k in ("accuracy", "loss", "completed", "seconds") if row.get(k) is not None
                    }
                    told = ", ".join(f"{k} {v:.4g}" for k, v in numbers.items())
                    said.append(f"{folder.name}: round {row['round']}: {told}, digest {row['digest'][:12]}")
                seen[folder] = len(lines)
            yield said

    def keep_logs(self) -> Path:
        """Copy what the processes printed to a folder that stays."""
        kept = self.wanted.out / f"failed-deployment-{time.strftime('%Y%m%d-%H%M%S')}-{os.getpid()}"
        shutil.copytree(self.processes.logs, kept)
        return kept


def run_folders(out: Path) -> list[Path]:
    """The run folders in a folder."""
    return [file.parent for file in out.glob("*/config.toml")]


def free_ports(count: int) -> list[int]:
    """Ports of this machine that nobody listens on at this moment, all different."""
    sockets = [socket.socket() for _ in range(count)]
    try:
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [int(one.getsockname()[1]) for one in sockets]
    finally:
        for one in sockets:
            one.close()
