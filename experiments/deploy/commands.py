"""The commands of a deployment, as a person types them: what ``up`` runs and ``plan`` prints. No paper."""

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import PurePath

ENVIRONMENT = {
    "FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION": "1",
    "FLWR_TELEMETRY_ENABLED": "0",
    "FLWR_DISABLE_UPDATE_CHECK": "1",
    "FLWR_SUPEREXEC_TASK_POLL_INTERVAL": "0.25",
}
"""On every machine: nothing is installed or asked for over the network, and work starts 0.25 s after it came, not 1 s."""
CONNECTION = "deployment"
"""Name of the SuperLink's connection in ``$FLWR_HOME/config.toml``."""


@dataclass(frozen=True)
class Link:
    """How a SuperLink is reached, and by whom."""

    host: str
    port: int = 8000
    tls: bool = False
    auth: bool = False
    """Whether nodes must have a registered key; needs ``tls``."""
    keys: PurePath = PurePath("keys")
    """Folder of certificates and keys, on each machine."""
    database: str = ""
    """A file in which the SuperLink keeps what it knows: it may then be killed and started again; needs ``superexec`` beside it."""

    def superlink(self, bind: str = "0.0.0.0") -> list[str]:
        """On the server."""
        safe = ["--ssl-ca-certfile", "ca.crt", "--ssl-certfile", "server.crt", "--ssl-keyfile", "server.key"]
        safe = (
            [word if word.startswith("--") else str(self.keys / word) for word in safe] if self.tls else ["--insecure"]
        )
        auth = ["--enable-supernode-auth"] if self.auth else []
        kept = ["--database", self.database, "--isolation", "process"] if self.database else []
        where = ["--host", bind, "--port", str(self.port)]
        return ["flower-superlink", *safe, *auth, *kept, "--disable-runtime-dependency-installation", *where]

    def superexec(self) -> list[str]:
        """On the server, where the ServerApp shall outlive the SuperLink."""
        safe = ["--root-certificates", str(self.keys / "ca.crt")] if self.tls else ["--insecure"]
        return ["flower-superexec", *safe, "--runtime-api-address", f"{self.host}:{self.port}"]

    def supernode(self, number: int, nodes: int, runtime_port: int, name: str = "", more: str = "") -> list[str]:
        """On device ``number`` of ``nodes``; ``more`` of its node config."""
        safe = ["--root-certificates", str(self.keys / "ca.crt")] if self.tls else ["--insecure"]
        auth = ["--auth-supernode-private-key", str(self.keys / f"{name or f'node-{number}'}.key")] if self.auth else []
        config = f"partition-id={number} num-partitions={nodes}{more and ' ' + more}"
        where = ["--superlink", f"{self.host}:{self.port}", "--port", str(runtime_port)]
        return ["flower-supernode", *safe, *auth, *where, "--node-config", config]

    def register(self, name: str) -> list[str]:
        """Where the experiment is started from: makes a node's key known."""
        return ["flwr", "supernode", "register", str(self.keys / f"{name}.pub"), CONNECTION]

    def connection(self) -> str:
        """What ``$FLWR_HOME/config.toml`` says of the SuperLink, where the experiment is started from."""
        safe = f'root-certificates = "{(self.keys / "ca.crt").as_posix()}"' if self.tls else "insecure = true"
        return f'[superlink]\ndefault = "{CONNECTION}"\n\n[superlink.{CONNECTION}]\naddress = "{self.host}:{self.port}"\n{safe}\n'


def run(args: str, **fixed: str | float) -> list[str]:
    """Starts the experiment; ``args`` as after ``python -m experiments.run``."""
    given = {"args": args, **fixed}
    said = " ".join(f"{key}={_toml(value)}" for key, value in given.items())
    return ["flwr", "run", ".", CONNECTION, "--run-config", said]


def _toml(value: str | float) -> str:
    """A value as TOML; texts in the quotes that they do not hold themselves. Raises ValueError for a text with both kinds."""
    if not isinstance(value, str):
        return repr(value)
    quote = next((q for q in ('"', "'") if q not in value and not (q == '"' and "\\" in value)), None)
    if quote is None:
        raise ValueError(f"{value!r}: has both kinds of quotes; leave one kind out")
    return f"{quote}{value}{quote}"


def shown(words: Sequence[str]) -> str:
    """A command as typed into a shell."""
    return shlex.join(words)


def exports() -> str:
    """``ENVIRONMENT`` as typed into a shell."""
    return "export " + " ".join(f"{key}={value}" for key, value in ENVIRONMENT.items())
