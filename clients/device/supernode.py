"""``python -m clients.node ...``: ``flower-supernode ...`` that says in words why its SuperLink will not have it. No paper.

By itself a SuperNode without TLS knocks for ever at a port that speaks TLS, and a key that nobody registered is ``[code: 2004]``.
Exit codes: 2 where it is refused, else the SuperNode's own.
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
"""Where Flower looks for a SuperLink."""
UNKNOWN_KEY = "[code: 2004]"
"""What Flower says of a node that it does not know."""
TIMEOUT_S = 5.0


def option(words: Sequence[str], flag: str) -> str:
    """The value of a flag; "" where it is not there."""
    for n, word in enumerate(words):
        key, equals, value = word.partition("=")
        if key == flag:
            return value if equals else "".join(words[n + 1 : n + 2])
    return ""


def refusal(words: Sequence[str]) -> str:
    """Why the SuperLink that these words name will not take such a connection; "" where nothing speaks against it.

    One that cannot be reached yet is no refusal: the SuperNode waits for it.
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
        who = authority or "this system"
        return f"{address} shows a certificate that {who} does not vouch for ({error.verify_message}): is it the server's ca.crt?"
    except (ssl.SSLError, ConnectionResetError) as error:
        plain = f"{address} speaks no TLS ({error}): start the SuperLink with its certificates, or this node with --insecure"
        return "" if insecure else plain
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

    def hand_on(number: int, _: FrameType | None) -> None:
        node.send_signal(number)

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, hand_on)
    assert node.stdout is not None
    unknown = False
    for line in node.stdout:
        print(line, end="", flush=True)
        unknown = unknown or UNKNOWN_KEY in line
        if unknown and node.poll() is not None:
            break  # what it started may hold the pipe for a while yet
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
