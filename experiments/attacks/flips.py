"""``python -m experiments.attacks.flips``: one flipped bit in each kind of file that is read, 30 times each.

A small run is made in a temporary folder. A flip is *seen* where reading raises an error or warns, or where what is
read is right nevertheless (a cache that is decoded anew); *without effect* where what is read is the same and nothing
is said (a bit that no reader looks at); *silent* where another value is returned. Prints a table; exit code 1 where any
flip is silent.
"""

import contextlib
import io
import os
import sys
import tempfile
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from clients.device.state import States
from clients.sources import cache
from experiments import run
from experiments.command_ends import ended
from fl_sim import load, rng, tree
from fl_sim.rounds import checkpoint
from fl_sim.states import segment_files
from fl_sim.states.segment_files import Segments

FLIPS = 30
"""Flips of each file."""
WORDS = "--model lr --clients 4 --rounds 2 --checkpoint_every 1 --block_size 4 --quiet"
"""The run that is made."""


@dataclass(frozen=True)
class Target:
    """A file, and what a reader gets from it."""

    what: str
    file: Path
    read: Callable[[], Any]
    """Returns what is compared by ``repr``."""


def targets(folder: Path) -> list[Target]:
    """The files of a new run, of a cache and of a device, below ``folder``."""
    assert run.main([*WORDS.split(), "--out", str(folder / "runs")]) == 0
    [made] = (folder / "runs").iterdir()
    last = checkpoint.listed(made)[-1]
    (folder / "raw").write_bytes(b"raw")
    x = np.arange(3000, dtype=np.uint8).reshape(-1, 1, 10, 10)
    arrays: cache.Arrays = {"train_x": x, "train_y": np.arange(len(x)), "test_x": x[:2], "test_y": np.arange(2)}
    source = cache.Source(folder, (folder / "raw",), lambda: arrays)
    cache.cached("flips", source)
    [decoded] = cache.cache_folder().glob("flips-*")
    states = States(folder / "states", "run", 1)
    states.save(1, {"w": torch.arange(500.0)})
    [state] = states.folder.iterdir()

    segments = Segments(folder / "segments")
    place = segments.append(1, {"w": torch.arange(500.0)})
    segments.close()

    def frames(name: str) -> Any:
        return load(made)[name].to_csv()  # type: ignore[attr-defined]

    def kept() -> Any:
        read = checkpoint.read(last)
        return tree.digest(read.model), read.strategy, read.facts

    return [
        Target("model.safetensors", made / "model.safetensors", lambda: tree.digest(load(made).model())),
        Target("a checkpoint", last, kept),
        Target(
            "a segment of states",
            segment_files.path_of(folder / "segments", 1),
            lambda: tree.digest(segment_files.read(folder / "segments", 1, place)),
        ),
        Target("decoded cache", decoded / "train_x.npy", lambda: cache.cached("flips", source)["train_x"].tolist()),
        Target("a device's state", state, lambda: tree.digest(states.load(1))),
        Target("rounds.jsonl", made / "rounds.jsonl", lambda: frames("rounds")),
        Target("clients.jsonl", made / "clients.jsonl", lambda: frames("clients")),
        Target("config.toml", made / "config.toml", lambda: load(made).config),
        Target("summary.json", made / "summary.json", lambda: load(made).summary),
    ]


def flipped(target: Target) -> dict[str, int]:
    """How many flips of a file are seen, without effect, silent."""
    good, expected = target.file.read_bytes(), repr(target.read())
    counts = {"seen": 0, "without effect": 0, "silent": 0}
    for number in range(FLIPS):
        bit = rng.key(0, f"flip {target.what}", number) % (8 * len(good))
        bad = bytearray(good)
        bad[bit // 8] ^= 1 << bit % 8
        target.file.write_bytes(bad)
        with warnings.catch_warnings(record=True) as told, contextlib.redirect_stderr(io.StringIO()) as said:
            warnings.simplefilter("always")
            try:
                same = repr(target.read()) == expected
            except Exception:
                same, told = True, [*told, None]  # type: ignore[list-item]
        result = "seen" if told or said.getvalue() else "without effect" if same else "silent"
        counts[result] += 1
        target.file.write_bytes(good)
    return counts


def main() -> int:
    """The command. Returns the exit code."""
    with tempfile.TemporaryDirectory() as name:
        os.environ["FL_SIM_CACHE"] = f"{name}/cache"
        rows = [(target.what, flipped(target)) for target in targets(Path(name))]
    kinds = list(rows[0][1])
    print(f"| file | {' | '.join(kinds)} |\n|---|{'---|' * len(kinds)}")
    for what, counts in [*rows, ("all", {kind: sum(row[1][kind] for row in rows) for kind in kinds})]:
        print(f"| {what} | {' | '.join(str(counts[kind]) for kind in kinds)} |")
    return 1 if any(counts["silent"] for _, counts in rows) else 0


if __name__ == "__main__":
    sys.exit(ended(main))
