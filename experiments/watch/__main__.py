"""``python -m experiments.watch RUN [RUN ...] [--port N] [--every S]``: the page of experiments.report, live.

It only reads: runs go on whether it is there or not, and it goes on when a run ends, is resumed or begins anew. It
listens on 127.0.0.1 alone, and answers only to the address that it prints, which has a token. Ctrl-C ends it with exit
code 0; bad input gives 2.
"""

import signal
import sys
from collections.abc import Sequence

from experiments.command_ends import Arguments, ended, signal_of
from experiments.watch.live_server import Watched, server_of
from fl_sim.errors import ConfigError


def main(arguments: Sequence[str] | None = None) -> int:
    """The command. Returns 0 after Ctrl-C, 2 for bad input."""
    parser = Arguments(
        prog="python -m experiments.watch", description="Show runs in the browser while they go on. It only reads."
    )
    parser.add_argument("runs", nargs="+", metavar="RUN", help="a run's folder, or a folder of runs at any depth")
    parser.add_argument("--port", type=int, default=0, help="of 127.0.0.1 (default: a free one)")
    parser.add_argument("--every", type=float, default=2.0, metavar="S", help="seconds between looks (default: 2)")
    options = parser.parse_args(arguments)
    try:
        if not 0.1 <= options.every <= 3600:
            raise ConfigError(f"every = {options.every:g}: must be between 0.1 and 3600 seconds")
        if not 0 <= options.port < 65536:
            raise ConfigError(f"port = {options.port}: must be a number below 65536, or 0 for a free port")
        server = server_of(Watched(options.runs), options.port, options.every)
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    with server:
        print(f"{server.address}\nopen this address; Ctrl-C ends", flush=True)
        try:
            server.serve_forever()
        except KeyboardInterrupt as error:
            if signal_of(error) != signal.SIGINT:
                raise
    return 0


if __name__ == "__main__":
    sys.exit(ended(main))
