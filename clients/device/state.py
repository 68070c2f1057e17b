"""A client's state, stored on its device's disk.

Each message is answered by a new process, and Flower's own ``Context.state`` is lost when the SuperNode ends, so that a
state is written to one file per round. It becomes valid when the server has accepted the reply of its round: the next
message names the last round that was accepted, and that round's file is read. If a reply is lost, the old state remains
valid.
"""

import hashlib
import json
import os
import re
from collections.abc import Mapping
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from fl_sim import tree
from fl_sim.tree import Tree
from fl_sim.wire.stored_leaves import restored, storable

KEPT = 20
"""Number of newest states that are kept, because a server that resumes goes back to its last checkpoint."""


class States:
    """The states of one client in one run, by round.

    Parameters
    ----------
    root : Path
        The device's folder for states; created when the first state is saved.
    run : str
        Name of the run.
    client : int
        Id of the client.
    """

    def __init__(self, root: Path, run: str, client: int) -> None:
        self.folder = root / (re.sub(r"[^\w=+-]+", "-", run) or "run") / f"client-{client}"

    def load(self, server_round: int) -> Tree:
        """The state after a round whose reply the server accepted.

        Raises ValueError if its file is missing or damaged: training with another state would give wrong numbers.
        """
        file = self._file(server_round)
        try:
            with safe_open(file, framework="pt") as stored:
                header = stored.metadata() or {}  # states of older versions have none
                leaves = {
                    name: stored.get_tensor(name) for name in json.loads(header.get("order", "[]")) or stored.keys()
                }
            if header.get("digest", "") not in ("", _digest(leaves, header)):  # older versions wrote none
                raise ValueError("its digest is another; it was damaged")
            return restored(leaves, json.loads(header.get("pairs", "[]")))
        except (OSError, SafetensorError, ValueError, TypeError) as error:
            accepted = f"the state that the server accepted in round {server_round}"
            raise ValueError(f"{accepted} is not on this device's disk ({file}: {error})") from error

    def save(self, server_round: int, state: Tree) -> None:
        """Write a round's new state, completely or not at all, and delete the oldest files beyond ``KEPT``."""
        self.folder.mkdir(parents=True, exist_ok=True)
        file = self._file(server_round)
        temporary = file.with_suffix(f".{os.getpid()}")
        try:
            leaves, pairs = storable(state)
            # the order of names, because the format sorts them
            header = {"order": json.dumps(list(state)), "pairs": json.dumps(pairs)}
            save_file(leaves, temporary, {**header, "digest": _digest(leaves, header)})
            os.replace(temporary, file)
        finally:
            temporary.unlink(missing_ok=True)
        for old in sorted(self.folder.glob("round-*.safetensors"))[:-KEPT]:
            old.unlink(missing_ok=True)

    def _file(self, server_round: int) -> Path:
        return self.folder / f"round-{server_round:08d}.safetensors"


def _digest(leaves: Tree, header: Mapping[str, str]) -> str:
    """A digest of a state's tensors, of their order and of which are complex."""
    text = f"{tree.digest(leaves)} {header.get('order')} {header.get('pairs')}"
    return hashlib.sha256(text.encode()).hexdigest()
