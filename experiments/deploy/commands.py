"""The commands of a deployment as they are typed into a shell: ``up`` runs them, ``plan`` prints them."""

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
"""Variables on every machine: nothing is installed or looked up over the network; work starts after 0.25 s, not 1 s."""
CONNECTION = "deployment"
"""Name of the SuperLink's connection in ``$FLWR_HOME/config.toml``."""


@dataclass(frozen=True)
class Link:
    """Address and security of a SuperLink."""

    host: str
    """Name or address of the server."""
    port: int = 8000
    tls: bool = False
    """Whether connections are encrypted."""
    auth: bool = False
    """Whether nodes must have a registered key; needs ``tls``."""
    keys: PurePath = PurePath("keys")
    """Folder of certificates and keys on each machine."""
    database: str = ""
    """File of the SuperLink's state, with which it can be killed and restarted; needs ``superexec``. Empty: none."""

    def superlink(self, bind: str = "0.0.0.0") -> list[str]:
        """Command of the server; it listens on the address ``bind``."""
        safe = ["--ssl-ca-certfile", "ca.crt", "--ssl-certfile", "server.crt", "--ssl-keyfile", "server.key"]
        safe = (
            [word if word.startswith("--") else str(self.keys / word) for word in safe] if self.tls else ["--insecure"]
        )
        auth = ["--enable-supernode-auth"] if self.auth else []
        kept = ["--database", self.database, "--isolation", "process"] if self.database else []
        where = ["--host", bind, "--port", str(self.port)]
        return ["flower-superlink", *safe, *auth, *kept, "--disable-runtime-dependency-installation", *where]

    def superexec(self) -> list[str]:
        """Command of a second process on the server, by which ServerApps outlive the SuperLink."""
        safe = ["--root-certificates", str(self.keys / "ca.crt")] if self.tls else ["--insecure"]
        return ["flower-superexec", *safe, "--runtime-api-address", f"{self.host}:{self.port}"]

    def supernode(self, number: int, nodes: int, runtime_port: int, name: str = "", more: str = "") -> list[str]:
        """Command of a device.

        Parameters
        ----------
        number : int
            Its partition id.
        nodes : int
            Number of devices.
        runtime_port : int
            Port that it listens on, on the device itself only.
        name : str
            Name of its key file without ending; empty: ``node-NUMBER``.
        more : str
            Further settings of its node config.
        """
        safe = ["--root-certificates", str(self.keys / "ca.crt")] if self.tls else ["--insecure"]
        auth = ["--auth-supernode-private-key", str(self.keys / f"{name or f'node-{number}'}.key")] if self.auth else []
        config = f"partition-id={number} num-partitions={nodes}{more and ' ' + more}"
        where = ["--superlink", f"{self.host}:{self.port}", "--port", str(runtime_port)]
        return ["flower-supernode", *safe, *auth, *where, "--node-config", config]

    def register(self, name: str) -> list[str]:
        """Command that registers a node's key; it runs on the machine from which experiments are started."""
        return ["flwr", "supernode", "register", str(self.keys / f"{name}.pub"), CONNECTION]

    def connection(self) -> str:
        """Content of ``$FLWR_HOME/config.toml`` on the machine from which experiments are started."""
        security = f'root-certificates = "{(self.keys / "ca.crt").as_posix()}"' if self.tls else "insecure = true"
        address = f'address = "{self.host}:{self.port}"'
        return f'[superlink]\ndefault = "{CONNECTION}"\n\n[superlink.{CONNECTION}]\n{address}\n{security}\n'


def run(args: str, **fixed: str | float) -> list[str]:
    """Command that starts an experiment; ``args`` are the arguments of ``experiments.run``, ``fixed`` further keys."""
    values = {"args": args, **fixed}
    run_config = " ".join(f"{key}={_toml(value)}" for key, value in values.items())
    return ["flwr", "run", ".", CONNECTION, "--run-config", run_config]


def _toml(value: str | float) -> str:
    """A value as TOML; a text is put into quotes that it does not contain. Raises ValueError if it has both."""
    if not isinstance(value, str):
        return repr(value)
    quote = next((q for q in ('"', "'") if q not in value and not (q == '"' and "\\" in value)), None)
    if quote is None:
        raise ValueError(f"{value!r}: has both kinds of quotes; leave one kind out")
    return f"{quote}{value}{quote}"


def shown(words: Sequence[str]) -> str:
    """A command as it is typed into a shell."""
    return shlex.join(words)


def exports() -> str:
    """The command that sets ``ENVIRONMENT`` in a shell."""
    return "export " + " ".join(f"{key}={value}" for key, value in ENVIRONMENT.items())
