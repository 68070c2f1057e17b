"""A deployment on this machine: start the processes, run an experiment, stop the processes.

The processes are those of a deployment on several machines: a SuperLink and a SuperNode for each client, each with a
home of its own in a temporary folder. Each command is printed as it would be typed. The exit code of ``flwr run`` does
not tell whether the run succeeded; the run's status in ``flwr ls`` and the summaries that the ServerApp writes do.
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
"""Seconds until the SuperLink must listen, and seconds between two checks of the run's status."""


@dataclass(frozen=True)
class DeploymentOptions:
    """Options of a deployment."""

    nodes: int
    """Number of SuperNodes."""
    tls: bool
    """Whether connections are encrypted."""
    auth: bool
    """Whether nodes must have a registered key."""
    args: Sequence[str]
    """Arguments of ``python -m experiments.run``."""
    out: Path
    """Parent of the run folders, absolute."""
    runs: int
    """Number of runs that ``args`` describe."""
    node_timeout_s: float = 120.0
    """Seconds to wait for all nodes."""
    timeout_s: float = 3600.0
    """Seconds to wait for the replies of a phase."""
    data: str = ""
    """Value of FL_SIM_DATA for all processes; empty: the one of this process."""
    silo_processes: int = 0
    """The entry ``silo-processes`` of each node config; 0: none."""
    database: str = ""
    """File of the SuperLink's state, with which it may be killed and started again; empty: none."""


class Deployment:
    """A deployment.

    Parameters
    ----------
    options : DeploymentOptions
        What to start.
    home : Path
        Folder for the homes of all processes and their logs.
    """

    def __init__(self, options: DeploymentOptions, home: Path) -> None:
        self.options, self.home = options, home
        ports = free_ports(options.nodes + 1)
        self.link = Link("127.0.0.1", ports[0], options.tls, options.auth, home / "keys", options.database)
        self.node_ports = ports[1:]
        self.report, self.app = home / "report.jsonl", home / "app"
        env = os.environ | ENVIRONMENT | {"FLWR_HOME": str(home / "operator"), "PYTHONUNBUFFERED": "1"}
        env["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), env.get("PATH", "")])
        env |= {"FL_SIM_PATH": os.pathsep.join(filter(None, [os.getcwd(), os.environ.get("FL_SIM_PATH", "")]))}
        env |= {"OMP_NUM_THREADS": "1"} | ({"FL_SIM_DATA": options.data} if options.data else {})
        (home / "logs").mkdir(parents=True)
        self.processes = Processes(home / "logs", env)
        self.start = time.monotonic()
        self.reported = 0
        """Number of summaries that existed before the last run was started."""
        self.logged: Iterator[list[str]] = iter(())
        """Yields, at each step, text for the new rounds in the run's logs."""

    def say(self, text: str) -> None:
        """Print a line for the user, with the time since the start."""
        print(f"[{time.monotonic() - self.start:6.1f} s] {text}", flush=True)

    def command(self, where: str, words: Sequence[str]) -> None:
        """Print a command that is about to run, and where it would be typed."""
        self.say(f"{where}$ {shown(words)}")

    def flwr(self, words: Sequence[str], show: bool = True) -> dict[str, Any]:
        """Run a ``flwr`` command; returns its output, decoded from JSON. Raises RoundFailed if it fails."""
        if show:
            self.command("operator", words)
        done = subprocess.run(
            [*words, "--format", "json"], cwd=self.app, env=self.processes.env, capture_output=True, text=True
        )
        try:
            answer: dict[str, object] = json.loads(done.stdout)
        except ValueError:
            answer = {}
        if done.returncode or not answer.get("success", True) or not answer:
            raise RoundFailed(f"{shown(words)}: {answer.get('error-message') or (done.stdout + done.stderr).strip()}")
        return answer

    # Up --------------------------------------------------------------------------------------------------------------

    def up(self) -> None:
        """Write keys, start the SuperLink, register keys, start the SuperNodes. Raises RoundFailed if one fails."""
        self.prepare()
        self.superlink()
        self.register(self.names)
        for n in range(self.options.nodes):
            self.node(n)

    @property
    def names(self) -> list[str]:
        """Names of the nodes that have keys."""
        return [f"node-{n}" for n in range(self.options.nodes)] if self.options.auth else []

    def prepare(self) -> None:
        """Create folders, the copy of the app, and keys."""
        options, link = self.options, self.link
        self.say(f"{options.nodes} nodes in {self.home}; on every machine: {exports()}")
        for folder in ("operator", "superlink", *(f"node-{n}" for n in range(options.nodes))):
            (self.home / folder).mkdir()
        write_bundle(self.app)
        if options.tls:
            hosts = ",".join([link.host, *self.names])
            self.say(f"operator$ python -m experiments.deploy keys --out {link.keys} --hosts {hosts}")
            keys.certificates(Path(link.keys), [link.host])
        for name in self.names:
            keys.node_key(Path(link.keys), name)
        (self.home / "operator" / "config.toml").write_text(link.connection(), encoding="utf-8")

    def superlink(self) -> None:
        """Start the server and wait until it listens. With a database, a call after it was killed restarts it."""
        words = self.link.superlink(bind=self.link.host)
        self.command("server", words)
        self.processes.start("superlink", words, self.home / "superlink", FLWR_HOME=str(self.home / "superlink"))
        self.listening()
        if self.link.database and "superexec" not in self.processes.running:
            words = self.link.superexec()
            self.command("server", words)
            self.processes.start("superexec", words, self.home / "superlink", FLWR_HOME=str(self.home / "superlink"))

    def node(self, n: int, *before: str, **env: str) -> None:
        """Start device ``n``, or start it again.

        Parameters
        ----------
        n : int
            Number of the device.
        before : str
            Words in front of its command, such as those of ``ip netns exec``.
        env : str
            Further environment variables.
        """
        more = f"silo-processes={self.options.silo_processes}" if self.options.silo_processes else ""
        words = self.link.supernode(n, self.options.nodes, self.node_ports[n], more=more)
        own = self.home / f"node-{n}"
        self.command(f"device {n}", words)
        self.processes.start(
            f"node-{n}", [*before, *words], own, **{"FLWR_HOME": str(own), "FL_SIM_STATE": str(own / "state"), **env}
        )

    def listening(self) -> None:
        """Wait until the SuperLink accepts connections. Raises RoundFailed where it does not within START_S."""
        end = time.monotonic() + START_S
        while time.monotonic() < end:
            self.check_superlink()
            with socket.socket() as probe:
                if probe.connect_ex((self.link.host, self.link.port)) == 0:
                    return
            time.sleep(0.1)
        raise RoundFailed(f"the SuperLink does not listen after {START_S:g} s\n{self.processes.tail('superlink')}")

    def register(self, names: Sequence[str]) -> None:
        """Register the keys of all nodes at the same time."""
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
        """Raise RoundFailed if the SuperLink has ended."""
        if "superlink" in (dead := self.processes.dead()):
            raise RoundFailed(f"the SuperLink ended with code {dead['superlink']}\n{self.processes.tail('superlink')}")

    # Run -------------------------------------------------------------------------------------------------------------

    def submit(self, words: Sequence[str]) -> str:
        """Start a run with these arguments of ``experiments.run``; returns Flower's id of it."""
        args = shown([*words, "--out", str(self.options.out)])
        fixed: dict[str, str | float] = {"report": str(self.report), "node-timeout-s": self.options.node_timeout_s}
        fixed["timeout-s"] = self.options.timeout_s
        self.reported, self.logged = len(self.summaries()), self.rows(self.written())
        return str(self.flwr(run(args, **fixed))["run-id"])

    def follow(self, number: str, runs: int = 1) -> tuple[str, list[dict[str, object]]]:
        """Follow the last run to its end, printing its rounds; returns (Flower's status, the summaries)."""
        status, checked, reported_dead = "", time.monotonic(), set[int]()
        while not status.startswith("finished"):
            time.sleep(0.2)
            self.check_superlink()
            for name, code in self.processes.dead().items():
                if (pid := self.processes.running[name].pid) not in reported_dead:
                    reported_dead.add(pid)
                    self.say(f"{name} ended with code {code}\n{self.processes.tail(name, 5)}")
            for line in next(self.logged):
                self.say(line)
            if len(self.summaries()) - self.reported >= runs or time.monotonic() - checked > LOOK_S:
                status, checked = self.status(number), time.monotonic()
        for line in next(self.logged):
            self.say(line)
        return status, self.summaries()[self.reported :]

    def status(self, number: str) -> str:
        """Flower's status of a run: ``running``, ``finished:completed`` ..."""
        [found] = self.flwr(["flwr", "ls", CONNECTION, "--run-id", number], show=False)["runs"]
        return str(found["status"])

    def summaries(self) -> list[dict[str, object]]:
        """The summaries that the ServerApp has written so far."""
        text = self.report.read_text(encoding="utf-8") if self.report.exists() else ""
        return [json.loads(line) for line in text.splitlines(keepends=True) if line.endswith("\n")]

    def written(self) -> dict[Path, list[str]]:
        """The complete lines of each ``rounds.jsonl``, by run folder."""
        logs = [folder / "rounds.jsonl" for folder in sorted(run_folders(self.options.out))]
        texts = {log.parent: log.read_text(encoding="utf-8") if log.exists() else "" for log in logs}
        return {
            folder: [line for line in text.splitlines(keepends=True) if line.endswith("\n")]
            for folder, text in texts.items()
        }

    def rows(self, before: Mapping[Path, list[str]]) -> Iterator[list[str]]:
        """Yields, at each step, a text for each round that was logged since the step before."""
        seen = {folder: len(lines) for folder, lines in before.items()}
        while True:
            lines_shown = []
            for folder, lines in self.written().items():
                for row in map(json.loads, lines[seen.get(folder, 0) :]):
                    numbers = {
                        k: row.get(k) for k in ("accuracy", "loss", "completed", "seconds") if row.get(k) is not None
                    }
                    text = ", ".join(f"{k} {v:.4g}" for k, v in numbers.items())
                    lines_shown.append(
                        f"{folder.name}: round {row['round']}: {text}, digest {(row['digest'] or '-')[:12]}"
                    )
                seen[folder] = len(lines)
            yield lines_shown

    def keep_logs(self) -> Path:
        """Copy the output of the processes into the folder of runs; returns the copy's folder."""
        kept = self.options.out / f"failed-deployment-{time.strftime('%Y%m%d-%H%M%S')}-{os.getpid()}"
        shutil.copytree(self.processes.logs, kept)
        return kept


def run_folders(out: Path) -> list[Path]:
    """The run folders in a folder."""
    return [file.parent for file in out.glob("*/config.toml")]


def free_ports(count: int) -> list[int]:
    """Different ports of this machine that no process listens on at this moment."""
    sockets = [socket.socket() for _ in range(count)]
    try:
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [int(one.getsockname()[1]) for one in sockets]
    finally:
        for one in sockets:
            one.close()
