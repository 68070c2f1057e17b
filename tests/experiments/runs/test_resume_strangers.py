"""A folder from a stranger runs no code: bombs are planted everywhere in it, and all commands are tried on it."""

import hashlib
import json
import os
import pickle
import shutil
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from experiments import replay, run
from experiments.analysis import __main__ as analysis
from experiments.config.stored import check_component
from fl_sim import load
from fl_sim.errors import ConfigError
from fl_sim.rounds import checkpoint
from fl_sim.rounds.checkpoint_files import checkpoint_form
from fl_sim.rounds.checkpoint_files.checkpoint_form import Checkpoint
from tests.fl_sim.rounds.checkpoint_files.bombs import Bomb

SMALL = "--model lr --clients 4 --rounds 2 --checkpoint_every 1 --checkpoint_keep 0 --block_size 4"


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of two rounds."""
    out = tmp_path_factory.mktemp("runs")
    assert run.main([*SMALL.split(), "--quiet", "--out", str(out)]) == 0
    [folder] = out.iterdir()
    return folder


def in_checkpoints(folder: Path, bomb: Bomb) -> None:
    """A signed-looking pickled part in the last checkpoint, an old checkpoint, and a plain pickle under a good name."""
    first, second = checkpoint.listed(folder)[-2:]
    good = checkpoint.read(second)
    unsigned = checkpoint_form.to_bytes(
        Checkpoint(2, good.model, 2, {**good.strategy, "odd": bomb}, {}, good.positions, good.facts)
    )
    key = Path(os.environ["FL_SIM_HOME"]) / "key"
    key.unlink()  # the stranger has signed it with a key of their own
    second.unlink()
    for number, data in ((2, unsigned), (9, pickle.dumps(bomb))):
        name = f"round-{number:06d}-{hashlib.sha256(data).hexdigest()}.safetensors"
        (first.parent / name).write_bytes(data)


def in_arrays(folder: Path, bomb: Bomb) -> None:
    """The model as torch.save writes it, and arrays that hold objects."""
    torch.save({"w": bomb}, folder / "model.safetensors")
    np.save(folder / "x.npy", np.array([bomb], dtype=object), allow_pickle=True)
    np.save(folder / "checkpoints" / "round-000003.npy", np.array([bomb], dtype=object), allow_pickle=True)


def in_tables(folder: Path, bomb: Bomb) -> None:
    """Every text file is a pickle."""
    for name in ("rounds.jsonl", "clients.jsonl", "events.jsonl", "summary.json", "names.json"):
        (folder / name).write_bytes(pickle.dumps(bomb) + b"\n")


def in_config(folder: Path, bomb: Bomb) -> None:
    """The model is a function that deletes a folder."""
    text = (folder / "config.toml").read_text()
    bomb.file.with_name("precious").mkdir()
    call = f'name = "shutil:rmtree"\npath = "{bomb.file.with_name("precious")}"'
    (folder / "config.toml").write_text(text.replace('[model]\nname = "lr"', f"[model]\n{call}"))
    assert "rmtree" in (folder / "config.toml").read_text()


PLANTED: list[Callable[[Path, Bomb], None]] = [in_checkpoints, in_arrays, in_tables, in_config]


@pytest.mark.parametrize("plant", PLANTED, ids=lambda plant: plant.__name__)
def test_no_bomb_explodes(
    plant: Any, finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("FL_SIM_HOME", str(tmp_path / "home"))
    folder, bomb = Path(shutil.copytree(finished, tmp_path / "run")), Bomb(tmp_path / "exploded")
    plant(folder, bomb)
    codes = {
        "analysis": analysis.main([str(folder)]),
        "replay": replay.main([str(folder), "--round", "2", "--client", "1"]),
        "fork": run.main(["--fork", f"{folder}@2", "--rounds", "3", "--out", str(tmp_path / "forks"), "--quiet"]),
        "resume": run.main(["--resume", str(folder), "--rounds", "3", "--quiet"]),
        "repeat": run.main([str(folder / "config.toml"), "--out", str(tmp_path / "repeats"), "--quiet"]),
    }
    with suppress(ValueError):
        load(folder).model()
    told = capsys.readouterr().err
    assert not bomb.file.exists() and "Traceback" not in told, told
    if plant is in_checkpoints:
        assert codes["fork"] == codes["resume"] == 2 and told.count("add --trust_pickle only if") == 2
        assert run.main(["--resume", str(folder), "--rounds", "3", "--quiet", "--trust_pickle"]) in (0, 1, 2)
        assert bomb.file.exists()  # it is a real one
    if plant is in_config:
        assert set(codes.values()) - {codes["analysis"]} == {2} and told.count("could do anything") >= 4
        assert tmp_path.joinpath("precious").is_dir()


@pytest.mark.parametrize(
    "kind, name",
    [
        ("model", "os:system"),
        ("model", "subprocess:Popen"),
        ("model", "numpy:load"),
        ("model", "torch:load"),
        ("task", "pandas:read_pickle"),
        ("strategy", "builtins:eval"),
        ("model", "experiments.deploy.homes:remove_left"),
        ("partition", "tests.experiments.runs.test_resume_strangers:shutil"),
        ("model", "tests.experiments.runs.test_resume_strangers:load_file"),
    ],
)
def test_a_stored_config_calls_components_only(kind: str, name: str) -> None:
    with pytest.raises(ConfigError, match=rf"{kind}.name = '{name}' in the stored config: is no {kind}"):
        check_component(kind, name)


@pytest.mark.parametrize(
    "kind, name",
    [
        ("model", "torch.nn:Linear"),
        ("strategy", "flwr.serverapp.strategy:FedAdam"),
        ("task", "clients.tasks.digits:digits"),
        ("model", "tests.experiments.runs.test_resume_strangers:in_config"),
    ],
)
def test_components_and_functions_of_the_users_own_modules_are_called(kind: str, name: str) -> None:
    check_component(kind, name)


def test_a_flipped_model_is_not_returned(finished: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(finished, tmp_path / "run"))
    model = load_file(folder / "model.safetensors")
    assert load(folder).model().keys() == model.keys()
    save_file({k: x + 1 for k, x in model.items()}, folder / "model.safetensors", {"round": "2"})
    with pytest.raises(ValueError, match="damaged or replaced"):
        load(folder).model()
    assert json.loads((folder / "summary.json").read_text())["status"] == "completed"


def test_a_checkpoint_of_no_run_is_refused(finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = Path(shutil.copytree(finished, tmp_path / "run"))
    last = checkpoint.read(checkpoint.listed(folder)[-1])
    checkpoint.save(folder, Checkpoint(2, last.model, 2))
    out = ["--rounds", "3", "--quiet", "--out", str(tmp_path)]
    assert run.main(["--resume", str(folder), *out]) == run.main(["--fork", str(folder), *out]) == 2
    assert capsys.readouterr().err.count("it holds no config, as those of runs do") == 2


def test_a_fork_tells_of_a_damaged_checkpoint_and_of_damaged_tables(
    finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = Path(shutil.copytree(finished, tmp_path / "run"))
    last = checkpoint.listed(folder)[-1]
    last.write_bytes(last.read_bytes()[:-1])
    fork = ["--fork", str(folder), "--rounds", "2", "--quiet", "--out", str(tmp_path / "forks")]
    assert run.main(fork) == 0
    assert "its checksum is another; it was damaged or cut short; the checkpoint of round 1" in capsys.readouterr().err
    (folder / "rounds.jsonl").write_bytes((folder / "rounds.jsonl").read_bytes().replace(b"accuracy", b"accuracz"))
    assert run.main(fork) == 2 and "rounds.jsonl: damaged or changed" in capsys.readouterr().err
