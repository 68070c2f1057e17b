"""``codec.down`` in whole runs: the numbers that it must not change, its bytes, and what is refused."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from flwr.app import ArrayRecord
from safetensors.torch import load_file

from experiments.config.recipe_files import make
from experiments.config.schema import Config
from experiments.runs.checks.coded_down import named
from experiments.runs.execute import execute
from experiments.runs.resume import ready, resume
from experiments.runs.setup import Setup
from fl_sim.errors import ConfigError
from fl_sim.tree import Tree
from fl_sim.wire import records
from fl_sim.wire.reference import Changes
from tests.experiments.config.setting_walks import WORLD

TINY: dict[str, Any] = {"task": f"{WORLD}:tiny", "partition": "natural", "model": f"{WORLD}:linear", "dtype": "float64"}


def config(down: str, out: Path, **more: Any) -> Config:
    codec = {"name": "none", "down": down, **more.pop("codec", {})}
    return make(**TINY, engine="loop", codec=codec, out=str(out), **more)


def ended(setup: Setup) -> tuple[Tree, list[dict[str, Any]]]:
    """The final model of a run, and the lines of its rounds."""
    summary, error = execute(setup, quiet=True)
    if error is not None:
        raise error
    folder = Path(summary["run_dir"])
    lines = (folder / "rounds.jsonl").read_text().splitlines()
    return load_file(folder / "model.safetensors"), [json.loads(line) for line in lines]


def rows(of: Config) -> list[dict[str, Any]]:
    return ended(ready(of))[1]


@pytest.mark.parametrize("strategy", ["scaffold", "feddyn"])
def test_where_nothing_is_lost_a_run_has_the_numbers_of_one_without(
    strategy: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A code of all coordinates is no smaller than the model, and the same bits; taken all the same, r is w but for
    rounding, and so is the run."""
    more: dict[str, Any] = {"strategy": strategy, "rounds": 3, "cohort": 3}
    without, same = rows(config("", tmp_path, **more)), rows(config("topk,share=1", tmp_path, **more))
    assert [row["digest"] for row in without] == [row["digest"] for row in same]
    monkeypatch.setattr(Changes, "num_bytes", lambda changes, like, server_round: 1)
    close = rows(config("topk,share=1", tmp_path, **more))
    assert [row["loss"] for row in close] == pytest.approx([row["loss"] for row in without], rel=1e-12)
    assert close[-1]["bytes_down"] < close[-1]["bytes_down_raw"] == without[-1]["bytes_down"]


def test_a_round_is_one_of_the_reference_model_and_its_bytes_are_counted(tmp_path: Path) -> None:
    """w_3 = w_2 + (FedAvg's step from r_2 - r_2): one round without a codec, which begins at r_2, gives the step."""
    own: dict[str, Any] = {"local": {"batch_size": 40, "epochs": 1, "lr": 0.5}}
    setup = ready(config("topk,share=0.25", tmp_path, rounds=2, **own))
    begin, seen = setup.grid.sent.begin, dict[int, tuple[Tree, Tree]]()

    def watched(model: Tree, arrays: ArrayRecord, server_round: int) -> ArrayRecord:
        started = begin(model, arrays, server_round)
        seen[server_round] = model, records.decode(started)
        return started

    setup.grid.sent.begin = watched  # type: ignore[method-assign]
    coded, log = ended(setup)
    w, r = seen[2]
    assert any(not torch.equal(w[k], r[k]) for k in w)
    stepped, _ = ended(replace(ready(config("", tmp_path, rounds=1, **own)), initial=records.encode(r)))
    torch.testing.assert_close(coded, {k: stepped[k] + (w[k] - r[k]) for k in w}, rtol=0, atol=1e-14)
    code = 2 * 8 + 1  # two of eight float64, and their indices as bits
    assert [row["bytes_down"] for row in log[1:]] == [4 * 8 * 8, 4 * code]
    assert [row["bytes_down_raw"] for row in log[1:]] == [4 * 8 * 8] * 2


def test_a_run_that_is_resumed_goes_on_with_what_its_clients_hold(tmp_path: Path) -> None:
    more: dict[str, Any] = {"cohort": 2, "checkpoint_every": 1, "block_size": 2}
    expected = rows(config("topk,share=0.25", tmp_path, rounds=4, **more))
    begun = config("topk,share=0.25", tmp_path / "cut", rounds=2, **more)
    rows(begun)
    [folder] = (tmp_path / "cut").iterdir()
    longer = replace(begun, rounds=4)
    resumed = resume(folder, longer)
    summary, error = execute(ready(longer), True, (), resumed)
    assert error is None
    found = [json.loads(line) for line in (Path(summary["run_dir"]) / "rounds.jsonl").read_text().splitlines()]
    for column in ("digest", "bytes_down"):
        assert [row.get(column) for row in found] == [row.get(column) for row in expected]


@pytest.mark.parametrize(
    "down, more, why",
    [
        ("topk", {"strategy": "flwr.serverapp.strategy:FedAvg"}, "decides itself what it sends"),
        ("topk", {"strategy": "fedasync"}, "start at any time"),
        ("topk", {"strategy": "hierarchical"}, "may send clients different models"),
        ("topk", {"strategy": "local-only"}, "no trained leaf travels"),
        ("topkk", {}, "topk"),
        ("topk,share", {}, "'share' is no number of topk, which has share=0.01"),
        ("topk,trees=control", {}, "'trees=control' is no number of topk"),
        ("topk,share=2", {}, "less than or equal to 1"),
    ],
)
def test_what_it_does_not_suit_is_refused_by_name(down: str, more: dict[str, Any], why: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=f"codec.down.*{why}"):
        ready(config(down, tmp_path, **more))
    assert not list(tmp_path.iterdir())


def test_its_numbers_are_its_own_or_those_of_the_same_codec_upwards(tmp_path: Path) -> None:
    up: dict[str, Any] = {"name": "topk", "share": 0.2}
    assert named(config("topk", tmp_path, codec=up)) == ("topk", {"share": 0.2})
    assert named(config("topk,share=0.3", tmp_path, codec=up)) == ("topk", {"share": 0.3})
    assert named(config("topk", tmp_path)) == ("topk", {"share": 0.01})
    assert named(config("none", tmp_path)) == named(config("", tmp_path)) == ("none", {})
    assert "codec" not in config("", tmp_path).to_dict() and config("int8", tmp_path).to_dict()["codec"]
