"""Checkpoints: all that a run needs to continue, one file each, written whole or not at all.

A file ``round-000012-<sha256>.safetensors`` holds the model, the clients' states and the strategy's state, which is
pickled, because a strategy of Flower's may have state of any form: load no checkpoint that you do not trust. The
checksum in its name shows a damaged file. The log is kept as byte positions of its files: a run that continues cuts
them back to these.
"""

import hashlib
import json
import math
import os
import pickle
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load as read_tensors
from safetensors.torch import save as write_tensors

from fl_sim.tree import Tree
from fl_sim.wire.stored_leaves import restored, storable

FOLDER, SUFFIX = "checkpoints", ".safetensors"
KEEP = 2
"""Default number of checkpoints that stay in a run's folder: the latest ones."""
SHARE = 0.02
"""The share of a run's time that checkpoints may take; where one takes more of a round, some rounds have none."""


class Damaged(ValueError):
    """A checkpoint whose bytes are not those that were written."""


@dataclass(frozen=True)
class Checkpoint:
    """A run between two rounds."""

    round: int
    """The last round that is done; 0: the initial model was evaluated."""
    model: Tree
    model_round: int
    """The round that produced ``model``."""
    strategy: Mapping[str, object] = field(default_factory=dict)
    """The strategy's attributes."""
    states: Mapping[int, Tree] = field(default_factory=dict)
    """Client id -> its state."""
    positions: Mapping[str, int] = field(default_factory=dict)
    """Bytes of each log file that belong to the rounds done."""
    facts: Mapping[str, Any] = field(default_factory=dict)
    """Plain values: versions, counters, seconds so far."""


def save(folder: Path, checkpoint: Checkpoint, keep: int = KEEP) -> Path:
    """Write into ``folder/checkpoints`` beside the others, then drop all but the last ``keep`` (0: none).

    Raises OSError (a full disk).
    """
    tensors = {f"model/{k}": v for k, v in checkpoint.model.items()}
    tensors |= {f"state/{client}/{k}": v for client, state in checkpoint.states.items() for k, v in state.items()}
    own, pairs = storable(tensors)
    own["strategy"] = torch.frombuffer(bytearray(pickle.dumps(dict(checkpoint.strategy))), dtype=torch.uint8)
    header = {"round": checkpoint.round, "model_round": checkpoint.model_round, "positions": dict(checkpoint.positions)}
    header |= {"facts": dict(checkpoint.facts), "clients": sorted(checkpoint.states)}
    # the order of names, because the format sorts them; a state whose order contradicts that of others has its own
    order = list(dict.fromkeys(k for t in (checkpoint.model, *checkpoint.states.values()) for k in t))
    place = {name: number for number, name in enumerate(order)}
    orders = {client: list(state) for client, state in checkpoint.states.items()}
    others = {client: names for client, names in orders.items() if names != sorted(names, key=place.__getitem__)}
    header |= {"order": order, "orders": others, "pairs": pairs}
    data = write_tensors(own, {"checkpoint": json.dumps(header)})
    where = folder / FOLDER
    where.mkdir(exist_ok=True)
    path = where / f"round-{checkpoint.round:06d}-{hashlib.sha256(data).hexdigest()}{SUFFIX}"
    temporary = where / f".round-{checkpoint.round:06d}.{os.getpid()}"
    try:
        with temporary.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    for other in listed(folder):
        if other != path and round_of(other) == checkpoint.round:
            other.unlink(missing_ok=True)
    for old in listed(folder)[:-keep] if keep else ():
        old.unlink(missing_ok=True)
    return path


def listed(folder: Path) -> list[Path]:
    """The checkpoints of a run, oldest round first."""
    return sorted((folder / FOLDER).glob(f"round-*{SUFFIX}"))


def round_of(path: Path) -> int:
    """The round of a checkpoint, by its name."""
    return int(path.name.split("-")[1])


def read(path: Path) -> Checkpoint:
    """A checkpoint. Raises Damaged where its bytes do not have the checksum in its name."""
    data = path.read_bytes()
    if hashlib.sha256(data).hexdigest() != path.name.removesuffix(SUFFIX).rpartition("-")[2]:
        raise Damaged(f"{path}: its checksum is another; it was damaged or cut short")
    length = int.from_bytes(data[:8], "little")
    header = json.loads(json.loads(data[8 : 8 + length])["__metadata__"]["checkpoint"])
    tensors = restored(read_tensors(data), set(header.get("pairs", ())))
    states: dict[int, Tree] = {client: {} for client in header["clients"]}
    for name, value in tensors.items():
        if name.startswith("state/"):
            _, client, key = name.split("/", 2)
            states[int(client)][key] = value
    model = {k.removeprefix("model/"): v for k, v in tensors.items() if k.startswith("model/")}
    orders, place = header.get("orders", {}), {name: number for number, name in enumerate(header["order"])}
    model = {k: model[k] for k in sorted(model, key=place.__getitem__)}
    states = {
        client: {k: state[k] for k in orders.get(str(client)) or sorted(state, key=place.__getitem__)}
        for client, state in states.items()
    }
    strategy = pickle.loads(tensors["strategy"].numpy().tobytes())
    return Checkpoint(
        header["round"], model, header["model_round"], strategy, states, header["positions"], header["facts"]
    )


def latest(folder: Path, server_round: int | None = None) -> tuple[Checkpoint | None, list[str]]:
    """(the last undamaged checkpoint, or that of ``server_round``, or None; why later ones are damaged)."""
    wrong: list[str] = []
    for path in reversed([p for p in listed(folder) if server_round is None or round_of(p) == server_round]):
        try:
            return read(path), wrong
        except Damaged as error:
            wrong.append(str(error))
    return None, wrong


class Checkpoints:
    """When a run writes its checkpoints, and where.

    Parameters
    ----------
    folder : Path
        The run's folder.
    every : int (default: 0)
        Rounds between checkpoints; 0: each round, or as many as keep their time below SHARE of the run's.
    keep : int (default: KEEP)
        How many stay; 0: all.
    facts : Mapping (default: {})
        Plain values to keep in each.
    """

    def __init__(self, folder: Path, every: int = 0, keep: int = KEEP, facts: Mapping[str, Any] | None = None) -> None:
        self.folder, self.every, self.keep, self.facts = folder, every, keep, dict(facts or {})
        self.refused = ""
        """Why no checkpoint of this run can be written: its strategy cannot be pickled. Empty where it can be."""
        self._next, self._started = 0, time.perf_counter()

    def due(self, server_round: int) -> bool:
        """Whether the round that has just ended gets one."""
        return not self.refused and (server_round >= self._next if self.every == 0 else server_round % self.every == 0)

    def save(self, checkpoint: Checkpoint, round_seconds: float) -> None:
        """Write a checkpoint, and decide when the next is due. Raises OSError (a full disk)."""
        start = time.perf_counter()
        facts = {**self.facts, "seconds": self.facts.get("seconds", 0.0) + start - self._started}
        try:
            save(self.folder, replace(checkpoint, facts=facts), self.keep)
        except (pickle.PicklingError, TypeError, AttributeError) as error:
            self.refused = f"{type(error).__name__}: {error}"
        taken = time.perf_counter() - start
        self._next = checkpoint.round + max(1, math.ceil(taken / max(SHARE * round_seconds, 1e-9)))
