"""Shakespeare: the next character in the speeches of a role. A role of a play is a natural client.

B. McMahan et al., "Communication-Efficient Learning of Deep Networks from Decentralized Data", AISTATS 2017, section 3
(1146 roles), arXiv:1602.05629; S. Caldas et al., "LEAF", 2018, arXiv:1812.01097, where sequences have 80 characters.

Legend: T characters of a sequence, V characters of the alphabet, N sequences.
"""

from pathlib import Path
from typing import Annotated

import numpy as np
import torch
from annotated_types import Ge
from torch import Tensor

from clients.sources.data_folder import file_in
from fl_sim.learning.measures import accuracy
from fl_sim.learning.sets.set_metrics import SetMetric
from fl_sim.learning.task import Task
from fl_sim.registry import offer
from fl_sim.tree import Tree

ALPHABET = "\t\n !$&',-.0123456789:;?ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
"""The characters of the text; class and input number 0 stands for any other."""
TEST_SHARE = 0.2
"""Of each role's sequences, the last ones in the order of the plays, for the central test set."""
HOLDS = "columns client_id and text, one row a speech"


class Perplexity(SetMetric):
    """exp of the mean cross-entropy of all characters: the set metric ``perplexity``, exp(loss)."""

    def __init__(self) -> None:
        self.total, self.count = 0.0, 0

    def update(self, outputs: Tensor, targets: Tensor) -> None:
        """Take in scores (B, T, V) and characters (B, T)."""
        scores, y = outputs.double().flatten(0, 1), targets.flatten()
        self.total += float(torch.nn.functional.cross_entropy(scores, y, reduction="sum"))
        self.count += len(y)

    def compute(self) -> Tensor:
        """The value over at least one character."""
        return torch.tensor(self.total / self.count, dtype=torch.float64).exp()


@offer("task", default_model="char-lstm")
def shakespeare(data_dir: str | None = None, length: Annotated[int, Ge(1)] = 80) -> Task:
    """Sequences of ``length`` characters of a role's speeches, x (length,) int64, y the same one character later.

    The role's speeches, in the order of the plays and separated by line ends, are cut into sequences; what is left of
    fewer characters is dropped. A role with fewer than two sequences is none of the clients. The last fifth of each
    role's sequences, at least one, is the central test set. The columns ``perplexity`` are exp(loss) of the same set.

    Raises ValueError for a ``length`` below 1, and where the data are missing or damaged.
    """
    if length < 1:
        raise ValueError(f"task.length = {length}: must be at least 1")
    file = file_in("shakespeare", data_dir, "shakespeare.parquet", HOLDS)
    parts: dict[str, list[np.ndarray]] = {"train": [], "test": []}
    owners, names = list[np.ndarray](), list[str]()
    for role, text in _speeches(file):
        coded = _coded(text)
        count = (len(coded) - 1) // length
        if count < 2:
            continue
        windows = np.stack([coded[start : start + length + 1] for start in range(0, count * length, length)])
        held = max(round(TEST_SHARE * count), 1)
        parts["train"].append(windows[:-held])
        parts["test"].append(windows[-held:])
        owners.append(np.full(count - held, len(names)))
        names.append(role)
    if not names:
        raise ValueError(f"task.length = {length}: no role of {file} has two sequences of it; choose a smaller one")
    train, test = (_samples(np.concatenate(part)) for part in (parts["train"], parts["test"]))
    return Task(
        "shakespeare",
        train,
        test,
        outputs=len(ALPHABET) + 1,
        metrics={"accuracy": accuracy},
        set_metrics={"perplexity": Perplexity()},
        clients=np.concatenate(owners),
        class_axis=-1,
        client_names=np.array(names, dtype=object),
    )


def _speeches(file: Path) -> list[tuple[str, str]]:
    """(role, its text) of each role, in the order of the plays. Raises ValueError for a file that cannot be read."""
    import pyarrow.parquet as pq

    try:
        table = pq.read_table(file, columns=["client_id", "text"])
    except (OSError, ValueError, KeyError) as error:
        raise ValueError(f"{file}: cannot be read ({error}); it must have {HOLDS}") from error
    texts: dict[str, list[str]] = {}
    for role, text in zip(*(table.column(name).to_pylist() for name in ("client_id", "text")), strict=True):
        texts.setdefault(role, []).append(text)
    return [(role, "\n".join(own)) for role, own in texts.items()]


def _coded(text: str) -> np.ndarray:
    """(characters,) int64: places in ALPHABET from 1 on, 0 for any other character."""
    return np.array([ALPHABET.find(character) + 1 for character in text], dtype=np.int64)


def _samples(windows: np.ndarray) -> Tree:
    return {"x": torch.from_numpy(windows[:, :-1].copy()), "y": torch.from_numpy(windows[:, 1:].copy())}
