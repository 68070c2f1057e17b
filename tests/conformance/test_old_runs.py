"""Run folders that an older commit wrote are read, resumed, made longer and forked: tests/data/runs-67eb029/README.md.

References are models in float64 that the older code computed. Another processor may round otherwise, so weights are
compared with a relative tolerance of 1e-9 and not by digest.
"""

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from experiments import run
from fl_sim import load, tree
from fl_sim.logs.columns import COLUMNS

OLD = Path(__file__).parents[1] / "data" / "runs-67eb029"
RUNS = sorted(folder for folder in OLD.iterdir() if folder.is_dir())
INTERRUPTED = [folder for folder in RUNS if (folder / "reference.json").exists()]
FORKED = [folder for folder in RUNS if (folder / "fork.json").exists()]
STRATEGIES = {"fedavg", "fedprox", "maml", "maxpool", "perfedavg", "reptile"}
ABSOLUTE_PATH = re.compile(rb"(?<![\w.])/(?:home|mnt|opt|private|root|srv|tmp|usr|Users|var|work)/")


def name(folder: Path) -> str:
    """The identifier of a test."""
    return folder.name


def check_model(result: Path, reference: Path) -> None:
    """The final model of a run folder is a reference's."""
    expected, found = load_file(reference), load(result).model()
    assert set(found) == set(expected)
    for key, value in expected.items():
        assert found[key].dtype == value.dtype
        torch.testing.assert_close(found[key], value, rtol=1e-9, atol=1e-13, msg=lambda text, k=key: f"{k}: {text}")


def check_numbers(result: Path, reference: Path) -> None:
    """The summary of a run folder has a reference's numbers; a digest depends on the processor's rounding."""
    expected, summary = json.loads(reference.read_text()), load(result).summary
    del expected["digest"]
    close: dict[str, Any] = {k: pytest.approx(v, rel=1e-9) if isinstance(v, float) else v for k, v in expected.items()}
    assert {k: summary[k] for k in close} == close


def test_the_runs_are_small_complete_and_of_no_particular_machine() -> None:
    files = [file for file in OLD.rglob("*") if file.is_file()]
    assert sum(file.stat().st_size for file in files) < 1_000_000
    assert [str(file) for file in files if ABSOLUTE_PATH.search(file.read_bytes())] == []
    assert {folder.name.removesuffix("-finished") for folder in FORKED} == STRATEGIES
    assert {folder.name.removesuffix("-interrupted") for folder in INTERRUPTED} == STRATEGIES | {"fedadam"}


@pytest.mark.parametrize("folder", RUNS, ids=name)
def test_an_old_run_is_read(folder: Path) -> None:
    log = load(folder)
    for table in ("rounds", "clients", "events"):
        assert list(log[table].columns)[: len(COLUMNS[table])] == list(COLUMNS[table])
    assert set(log.summary) <= set(COLUMNS["summary"])
    assert log.rounds["round"].tolist() == list(range(len(log.rounds))) and len(log.rounds) >= 3
    assert log.rounds["digest"].notna().all() and (log.clients["status"] == "completed").any()
    assert all(bool(value.isfinite().all()) for value in log.model().values())
    assert log.summary.get("digest") in {None, tree.digest(log.model())}


@pytest.mark.parametrize("folder", INTERRUPTED, ids=name)
def test_an_interrupted_old_run_goes_on_as_if_it_had_not_been(folder: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(folder, tmp_path / folder.name))
    assert run.main(["--resume", str(copy), "--quiet", "--trust_pickle"]) == 0
    check_model(copy, folder / "reference.safetensors")
    check_numbers(copy, folder / "reference.json")
    assert load(copy).rounds["round"].tolist() == list(range(7))


@pytest.mark.parametrize("folder", FORKED, ids=name)
def test_a_fork_of_an_old_run_is_the_one_that_the_old_code_computed(folder: Path, tmp_path: Path) -> None:
    assert (
        run.main(["--fork", f"{folder}@2", "--rounds", "4", "--out", str(tmp_path), "--quiet", "--trust_pickle"]) == 0
    )
    [forked] = tmp_path.iterdir()
    check_model(forked, folder / "fork.safetensors")
    check_numbers(forked, folder / "fork.json")


@pytest.mark.parametrize("folder", FORKED, ids=name)
def test_a_finished_old_run_is_left_alone_or_made_longer(folder: Path, tmp_path: Path) -> None:
    """A fourth round after the third gives the model of the fork, which trained the third anew from the second."""
    copy = Path(shutil.copytree(folder, tmp_path / folder.name))
    before = load(copy)
    assert run.main(["--resume", str(copy), "--quiet", "--trust_pickle"]) == 0
    assert tree.digest(load(copy).model()) == before.summary["digest"]
    assert run.main(["--resume", str(copy), "--rounds", "4", "--quiet", "--trust_pickle"]) == 0
    check_model(copy, folder / "fork.safetensors")
    after = load(copy)
    assert after.rounds["digest"].tolist()[:4] == before.rounds["digest"].tolist()
    assert (after.summary["rounds"], after.config["rounds"]) == (4, 4)
