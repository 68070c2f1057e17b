"""A client's state on its device's disk. No paper.

Each message is answered by a new process, and Flower's own ``Context.state`` dies with the SuperNode, so a state goes
to a file of its round. It counts once the server has accepted that round's reply: the next message says which round
that was, and the state is read from its file. A reply that was lost thus leaves the old state in force.
"""

import os
import re
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from fl_sim.tree import Tree

KEPT = 20
"""So many files are kept: a server that resumes goes back to its last checkpoint."""


class States:
    """The states of one client in one run, by round.

    Parameters
    ----------
    root : Path
        The device's folder for states; made when the first one is saved.
    run, client : str, int
        Whose they are.
    """

    def __init__(self, root: Path, run: str, client: int) -> None:
        self.folder = root / (re.sub(r"[^\w=+-]+", "-", run) or "run") / f"client-{client}"

    def load(self, server_round: int) -> Tree:
        """The state after a round. Raises ValueError where it is not there: it was accepted, so training without it would be wrong."""
        file = self._file(server_round)
        try:
            return load_file(file)
        except (OSError, SafetensorError) as error:
            raise ValueError(
                f"the state that the server accepted in round {server_round} is not on this device's disk ({file}: {error})"
            ) from error

    def save(self, server_round: int, state: Tree) -> None:
        """Write a round's new state, whole or not at all; the oldest files go."""
        self.folder.mkdir(parents=True, exist_ok=True)
        file = self._file(server_round)
        temporary = file.with_suffix(f".{os.getpid()}")
        try:
            save_file({k: v.detach().cpu().contiguous().clone() for k, v in state.items()}, temporary)
            os.replace(temporary, file)
        finally:
            temporary.unlink(missing_ok=True)
        for old in sorted(self.folder.glob("round-*.safetensors"))[:-KEPT]:
            old.unlink(missing_ok=True)

    def _file(self, server_round: int) -> Path:
        return self.folder / f"round-{server_round:08d}.safetensors"
