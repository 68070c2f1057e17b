"""Instructions for a deployment on machines with given names: the commands and files, as text."""

from collections.abc import Sequence
from pathlib import PurePosixPath

from experiments.deploy.commands import Link, exports, run, shown


def text(server: str, devices: Sequence[str], port: int, tls: bool, auth: bool, args: Sequence[str]) -> str:
    """The instructions, in the order in which they are followed; the devices are numbered as listed.

    Parameters
    ----------
    server : str
        Name of the server.
    devices : sequence of str
        Names of the devices; the n-th one is client n.
    port : int
        Port of the server.
    tls, auth : bool
        Whether connections are encrypted, and whether nodes must have a registered key.
    args : sequence of str
        Arguments of ``experiments.run``.
    """
    link = Link(server, port, tls, auth, PurePosixPath("keys"))
    parts = [
        "# 1. On every machine, in a clone of this project (the same commit):\n"
        f"make install\n. .venv/bin/activate\n{exports()}"
    ]
    if tls:
        names = [server, *(devices if auth else ["device"])]
        lines = ["# 2. On your own machine:", f"python -m experiments.deploy keys --out keys --hosts {','.join(names)}"]
        lines += [f"#    to {server}: keys/ca.crt keys/server.crt keys/server.key"]
        lines += [f"#    to {name}: keys/ca.crt" + (f" keys/{name}.key" if auth else "") for name in devices]
        parts.append("\n".join([*lines, "#    keys/ca.key goes nowhere: whoever has it can pass for the server"]))
    title = f"# 3. On {server} (open port {port} to the devices and to yourself, to nobody else):"
    parts.append(f"{title}\n{shown(link.superlink())}")
    lines = [
        "# 4. On your own machine, $FLWR_HOME/config.toml (FLWR_HOME: ~/.flwr unless you set it):",
        link.connection().rstrip(),
    ]
    lines += [shown(link.register(name)) for name in devices] if auth else []
    parts.append("\n".join(lines))
    for number, name in enumerate(devices):
        words = ["python", "-m", "clients.node", *link.supernode(number, len(devices), 9100, name)[1:]]
        title = f"# {5 + number}. On {name} (flower-supernode, which says here why it is refused if it is):"
        parts.append(f"{title}\n{shown(words)}")
    last = f"# {5 + len(devices)}. On your own machine; the run folder is made on {server}, "
    last += f"below the folder the SuperLink was started in:\n{shown(run(shown(args)))}"
    parts.append(f"{last}\nflwr ls deployment --format json  # the run's status; the exit code above says nothing")
    return "\n\n".join(parts)
