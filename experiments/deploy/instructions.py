"""The commands and files of a deployment on machines with names; nothing is done. No paper."""

from collections.abc import Sequence
from pathlib import PurePosixPath

from experiments.deploy.commands import Link, exports, run, shown


def text(server: str, devices: Sequence[str], port: int, tls: bool, auth: bool, args: Sequence[str]) -> str:
    """What to type where, in its order. Device n is client n."""
    link = Link(server, port, tls, auth, PurePosixPath("keys"))
    parts = [
        f"# 1. On every machine, in a clone of this project (the same commit):\nmake install\n. .venv/bin/activate\n{exports()}"
    ]
    if tls:
        names = [server, *(devices if auth else ["device"])]
        lines = ["# 2. On your own machine:", f"python -m experiments.deploy keys --out keys --hosts {','.join(names)}"]
        lines += [f"#    to {server}: keys/ca.crt keys/server.crt keys/server.key"]
        lines += [f"#    to {name}: keys/ca.crt" + (f" keys/{name}.key" if auth else "") for name in devices]
        parts.append("\n".join([*lines, "#    keys/ca.key goes nowhere: whoever has it can pass for the server"]))
    parts.append(
        f"# 3. On {server} (open port {port} to the devices and to yourself, to nobody else):\n{shown(link.superlink())}"
    )
    lines = [
        "# 4. On your own machine, $FLWR_HOME/config.toml (FLWR_HOME: ~/.flwr unless you set it):",
        link.connection().rstrip(),
    ]
    lines += [shown(link.register(name)) for name in devices] if auth else []
    parts.append("\n".join(lines))
    for number, name in enumerate(devices):
        words = ["python", "-m", "clients.node", *link.supernode(number, len(devices), 9100, name)[1:]]
        parts.append(
            f"# {5 + number}. On {name} (flower-supernode, which says here why it is refused if it is):\n{shown(words)}"
        )
    last = f"# {5 + len(devices)}. On your own machine; the run folder is made on {server}, below the folder the SuperLink was started in:"
    parts.append(
        f"{last}\n{shown(run(shown(args)))}\nflwr ls deployment --format json  # the run's status; the exit code above says nothing"
    )
    return "\n\n".join(parts)
