"""``python -m clients.node ...``: runs ``flower-supernode ...`` and explains why a SuperLink refuses the connection.

Without this, a SuperNode without TLS tries for ever to connect to a port that speaks TLS, and a key that was never
registered is reported as ``[code: 2004]``. The exit code is 2 if the connection is refused, else that of
``flower-supernode``.
"""

import os
import signal
import socket
import ssl
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from types import FrameType

DEFAULT = "127.0.0.1:8000"
"""Flower's default address of a SuperLink."""
UNKNOWN_KEY = "[code: 2004]"
"""Flower's message for a node whose key is not registered."""
TIMEOUT_S = 5.0
"""Longest time to wait for the connection that tries the address."""


def option(words: Sequence[str], flag: str) -> str:
    """The value of a flag on a command line, written as ``--flag value`` or ``--flag=value``; "" if it is absent."""
    for n, word in enumerate(words):
        key, equals, value = word.partition("=")
        if key == flag:
            return value if equals else "".join(words[n + 1 : n + 2])
    return ""


def refusal(words: Sequence[str]) -> str:
    """Why the SuperLink named on the command line would refuse the connection; "" if no reason is known.

    An address that cannot be reached yet is no reason, since the SuperNode waits for it.
    """
    address = option(words, "--superlink") or DEFAULT
    host, _, port = address.rpartition(":")
    insecure, authority = "--insecure" in words, option(words, "--root-certificates")
    context = ssl.create_default_context()
    if insecure:
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    elif authority:
        if not Path(authority).is_file():
            return f"--root-certificates {authority}: no such file; it is ca.crt of the server's keys"
        context = ssl.create_default_context(cafile=authority)
    try:
        with (
            socket.create_connection((host.strip("[]"), int(port)), TIMEOUT_S) as bare,
            context.wrap_socket(bare, server_hostname=host),
        ):
            return (
                f"{address} speaks TLS: give --root-certificates keys/ca.crt instead of --insecure" if insecure else ""
            )
    except ssl.SSLCertVerificationError as error:
        who, why = authority or "this system", error.verify_message
        return f"{address} shows a certificate that {who} does not vouch for ({why}): is it the server's ca.crt?"
    except (ssl.SSLError, ConnectionResetError) as error:
        cure = "start the SuperLink with its certificates, or this node with --insecure"
        return "" if insecure else f"{address} speaks no TLS ({error}): {cure}"
    except (OSError, ValueError) as error:
        print(f"note: {address} cannot be reached yet ({error})", file=sys.stderr)
        return ""


def main(argv: Sequence[str] | None = None) -> int:
    """The command. Returns the exit code."""
    words = list(sys.argv[1:] if argv is None else argv)
    if why := refusal(words):
        print(f"error: {why}", file=sys.stderr)
        return 2
    command = Path(sys.executable).with_name("flower-supernode")
    node = subprocess.Popen(
        [str(command) if command.exists() else command.name, *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
    )

    def forward_signal(number: int, _: FrameType | None) -> None:
        node.send_signal(number)

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, forward_signal)
    assert node.stdout is not None
    unknown = False
    for line in node.stdout:
        print(line, end="", flush=True)
        unknown = unknown or UNKNOWN_KEY in line
        if unknown and node.poll() is not None:
            break  # Do not wait for the end of the output: child processes of the node may keep the pipe open.
    code = node.wait()
    if not unknown:
        return code
    key = option(words, "--auth-supernode-private-key")
    name = os.path.splitext(key)[0] or "KEY"
    print(
        f"error: the SuperLink does not know this node's key (register it: flwr supernode register {name}.pub), "
        "or takes one that was killed less than a minute ago for alive (start again then)",
        file=sys.stderr,
    )
    return 2
