"""A codec of one's own, as docs/your-own.md shows it: a run names it by its path, or is given the object."""

import inspect
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from experiments.config.recipe_files import make
from experiments.runs.execute import execute
from experiments.runs.setup import build
from fl_sim import load
from fl_sim.errors import ConfigError
from fl_sim.registry import HOME
from fl_sim.tree import Tree
from fl_sim.wire.codec import Codec, Form, Keys
from tests.experiments.config.tiny_world import NAMES


@dataclass(frozen=True)
class Signs(Codec):
    """The sign of each coordinate, and one number: the mean of their magnitudes."""

    def form(self, like: Tree) -> Mapping[str, Form]:
        n = sum(x.numel() for x in like.values())
        return {"signs": Form((-(-n // 8),), torch.uint8), "size": Form((), torch.float32)}

    def encode(self, update: Tree, state: Tree, keys: Keys) -> tuple[Tree, Tree]:
        vector = torch.cat([x.reshape(-1) for x in update.values()])
        signs = torch.from_numpy(np.packbits((vector >= 0).cpu().numpy()))
        return {"signs": signs, "size": vector.abs().mean().float()}, {}

    def decode(self, code: Tree, like: Tree, shared: int) -> Tree:
        sizes = [x.numel() for x in like.values()]
        ones = torch.from_numpy(np.unpackbits(code["signs"].cpu().numpy(), count=sum(sizes)))
        parts = ((2 * ones.float() - 1) * code["size"].cpu()).split(sizes)
        return {k: part.reshape(x.shape).to(x) for (k, x), part in zip(like.items(), parts, strict=True)}


TINY: dict[str, Any] = {"task": f"{NAMES}:tiny", "model": f"{NAMES}:linear", "rounds": 4, "partition": "natural"}


def ran(out: Path, **settings: Any) -> pd.DataFrame:
    summary, error = execute(build(make(**{**TINY, **settings, "out": str(out)})), quiet=True)
    assert error is None
    return load(summary["run_dir"]).rounds


def test_it_is_the_one_of_the_document() -> None:
    assert inspect.getsource(Signs) in (Path(HOME) / "docs" / "your-own.md").read_text()


def test_by_hand() -> None:
    """Signs + - + -, mean magnitude 2.5."""
    update = {"a": torch.tensor([1.0, -2.0]), "b": torch.tensor([[3.0], [-4.0]])}
    read, kept = Signs().transmit(update, {}, Keys(1, 2))
    assert read["a"].tolist() == [2.5, -2.5] and read["b"].tolist() == [[2.5], [-2.5]] and kept == {}
    assert Signs().problem(Signs().encode(update, {}, Keys(1, 2))[0], update) == ""


def test_a_run_takes_it_by_path_and_as_an_object(tmp_path: Path) -> None:
    """Of 8 numbers: a byte of signs and a float32, of 4 clients. With feedback the loss falls."""
    named = ran(tmp_path / "named", codec=f"{__name__}:Signs")
    given = ran(tmp_path / "given", codec=Signs())
    assert named["digest"].tolist() == given["digest"].tolist()
    assert named["bytes_up"].tolist()[1:] == [4 * 5] * 4 and named["train_codec_error"].iloc[-1] > 0
    assert named["train_loss"].iloc[-1] < named["train_loss"].iloc[1]


def test_what_is_no_codec_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"codec.name = .*: makes no fl_sim.wire.codec.Codec"):
        build(make(**{**TINY, "codec": f"{NAMES}:Keeps"}))
