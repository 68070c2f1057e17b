"""``best/``: the model that is best by the validation samples or clients, one file for each round that was the best.

A run that is resumed cuts its log back to a checkpoint, after which the best round may be an earlier one. So the models
of earlier best rounds stay as long as a checkpoint before the next best one does.
"""

import os
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from fl_sim.logs import model_file

FOLDER = "best"
"""Folder of these models, in that of the run."""


def best_row(rows: Iterable[Mapping[str, Any]]) -> Mapping[str, Any] | None:
    """The row of the best model: the highest ``val_accuracy``; where no row has one, the lowest ``val_loss``.

    In a run with validation clients these are ``val_unseen_accuracy`` and ``val_unseen_loss``. Of equal ones the first.
    None where no row has either.
    """
    found = list(rows)
    for column, sign in (
        *(("val_unseen_accuracy", 1.0), ("val_unseen_loss", -1.0)),
        *(("val_accuracy", 1.0), ("val_loss", -1.0)),
    ):
        have = [row for row in found if (value := row.get(column)) is not None and value == value]
        if have:
            return max(have, key=lambda row: sign * row[column])
    return None


def place(run: Path, server_round: int) -> Path:
    """The file of the model of a round."""
    return run / FOLDER / f"round-{server_round:06d}.safetensors"


def save(
    run: Path,
    tree: Mapping[str, Tensor],
    server_round: int,
    digest: str,
    state_dict: Callable[[Mapping[str, Tensor]], Mapping[str, Tensor]],
    oldest_checkpoint: int,
) -> None:
    """Write the model of the best round so far, and delete those that no resumed run can need.

    Parameters
    ----------
    run : Path
        The run's folder.
    tree, server_round, digest : Mapping, int, str
        The global model, its round, and its digest in the round's line.
    state_dict : Callable
        From a trained tree to the names and numbers of the user's module.
    oldest_checkpoint : int
        The first round after which the run may go on; 0: from its beginning.
    """
    file, state = place(run, server_round), state_dict(tree)
    file.parent.mkdir(exist_ok=True)
    same = state.keys() == tree.keys() and all(x.dtype == tree[k].dtype for k, x in state.items())
    temporary = file.with_name(f".{file.name}.{os.getpid()}")
    try:
        model_file.write(temporary, state, server_round, digest, same)
        os.replace(temporary, file)
    finally:
        temporary.unlink(missing_ok=True)
    known = sorted(file.parent.glob("round-*.safetensors"))
    before = [path for path in known if _round_of(path) <= oldest_checkpoint]
    for path in before[:-1] + [path for path in known if _round_of(path) > server_round]:
        path.unlink(missing_ok=True)


def _round_of(path: Path) -> int:
    return int(path.stem.rpartition("-")[2])
