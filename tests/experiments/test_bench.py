"""The arithmetic of the benchmark, its table, its flags, and what it tells the children."""

import json
import os
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import torch

from experiments.bench import options
from experiments.bench.__main__ import main
from experiments.bench.children import process_tree
from experiments.bench.children.child import Child, Stopped
from experiments.bench.children.observed import Compared, Raw
from experiments.bench.systems import SYSTEMS, YARDSTICK
from experiments.bench.systems.bare import Bare
from experiments.bench.systems.yardstick import gflop_a_sample
from experiments.bench.tables import cpu_table, figures, readme
from experiments.bench.turns import _turn
from experiments.bench.workloads import catalogue
from experiments.bench.workloads.as_config import settings
from experiments.bench.workloads.prepare import moments, prepare
from experiments.bench.workloads.shared_inputs import World
from experiments.provenance import processor
from experiments.run import run

S1, S2 = catalogue.WORKS[0], catalogue.WORKS[2]
TINY = replace(S2, clients=6, cohort=3, train=120, test=20, random=True, whole=False)


def raw(system: str, seconds: list[float], examples: int = 100, **more: Any) -> Raw:
    return Raw(system, seconds=seconds, facts=[{"examples": examples, "updates": 10} for _ in seconds], **more)


def results(*raws: Raw, work: catalogue.Work = S1) -> dict[str, Any]:
    told = [
        {"gflops": 0.0, "gflop_a_sample": 0.5},
        {"gflops": 80.0, "gflop_a_sample": 0.5},
        {"gflops": 120.0, "gflop_a_sample": 0.5},
    ]
    compared = Compared(work, list(raws), {"random": False, "parameters": 7}, told)
    return {
        "machine": {"cpu": "a processor", "cores": 2, "memory_gib": 8.0, "system": "Linux"},
        "versions": {"torch": "2", "pfl": None},
        "commit": "abc",
        "date": "2026-01-01",
        "memory": "pss",
        "works": [figures.work_row(compared)],
        "rows": figures.rows(compared),
    }


def test_ratios_are_taken_turn_by_turn() -> None:
    """Both systems are slowed twofold in the second turn: 2/1 and 4/2 are 2, whereas the medians' ratio would need luck."""
    done = results(raw("ours-loop", [2.0, 4.0, 9.0]), raw("bare-careful", [1.0, 2.0, 3.0]))
    assert done["rows"][0]["ratio"] == {"median": 2.0, "min": 2.0, "max": 3.0}
    assert done["rows"][1]["ratio"] == {"median": 1.0, "min": 1.0, "max": 1.0}


def test_figures_of_a_row() -> None:
    """100 samples of .5 GFLOP in 1, 2, 4 s: 50, 25, 12.5 GFLOP/s, the middle one a quarter of the 100 that a matrix product reaches."""
    row = results(raw("ours-loop", [1.0, 2.0, 4.0], startup_s=[3.0], setup_s=[1.0], peak=(5, 9), accuracy=0.5))["rows"][
        0
    ]
    assert row["gflops"] == 25.0 and row["matmul_share"] == 0.25
    assert row["updates_per_s"] == 5.0 and row["seconds"] == {"median": 2.0, "min": 1.0, "max": 4.0}
    assert (row["startup_s"], row["setup_s"], row["peak_bytes"], row["peak_rss_bytes"], row["accuracy"]) == (
        3.0,
        1.0,
        5,
        9,
        0.5,
    )
    assert row["cpu_s"] is None and row["ratio"] is None  # the reference did not run


def test_random_arrays_have_no_accuracy() -> None:
    row = results(raw("bare", [1.0], accuracy=0.1), work=replace(S1, random=True))["rows"][0]
    assert row["accuracy"] is None


def test_a_system_that_trained_on_other_samples_is_named() -> None:
    done = results(raw("ours-loop", [1.0], 90), raw("bare", [1.0]), raw("bare-careful", [1.0]))
    assert [row["same_work"] for row in done["rows"]] == [False, True, True]
    assert "- ours-loop: did other work: [90] samples." in cpu_table.markdown(done)


def test_a_system_without_figures_is_told_with_its_reason() -> None:
    done = results(
        raw("bare-careful", [1.0]),
        Raw("pfl", "unavailable", "not installed"),
        Raw("bare", "failed", "ValueError: x\ny"),
    )
    text = cpu_table.markdown(done)
    assert "- pfl: not available: not installed" in text and "- bare: failed: ValueError: x y" in text
    assert json.loads(json.dumps(done, allow_nan=False)) == done


def test_the_table_is_markdown_with_as_many_cells_in_each_line() -> None:
    text = cpu_table.markdown(results(raw("ours-loop", [2.0, 4.0], accuracy=0.377), raw("bare-careful", [1.0, 2.0])))
    lines = [line for line in text.splitlines() if line.startswith("|")]
    assert len({line.count("|") for line in lines}) == 1 and len(lines) == 4
    assert "*ours-loop*: this simulator, engine loop, one process; *bare-careful*: " in text
    assert lines[2].startswith("| ours-loop    | 3.00 (2.00-4.00)") and "0.377" in lines[2] and " 2.00 " in lines[2]


def test_readme_section(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    document, stored = tmp_path / "README.md", tmp_path / "bench.json"
    stored.write_text(json.dumps(results(raw("bare-careful", [1.0]))))
    command = [str(stored), "--readme", str(document)]
    document.write_text("before\n")
    assert readme.main(command) == 2 and "must hold" in capsys.readouterr().err
    start, end = (mark.format("bench") for mark in readme.MARKS)
    document.write_text(f"before\n{start}\nold\n{end}\nafter\n")
    assert readme.main([*command, "--check"]) == 1 and "stale" in capsys.readouterr().err
    assert readme.main(command) == 0 and readme.main([*command, "--check"]) == 0
    text = document.read_text()
    assert text.startswith("before\n") and text.endswith("\nafter\n") and "bare-careful" in text and "old" not in text


def test_the_readme_says_what_the_results_say() -> None:
    stored = [
        str(readme.README.parent / "experiments" / "results" / name)
        for name in ("bench.json", "sweep.json", "gpu.json")
    ]
    assert readme.main([*stored, "--check"]) == 0


@pytest.mark.parametrize(
    "argv, told",
    [
        (["--work", "S1-skw"], "--work = 'S1-skw': unknown (did you mean 'S1-skew'?)"),
        (["--systems", "flour"], "--systems = 'flour': unknown (did you mean 'flower'?)"),
        (["--rounds", "0"], "--rounds = '0': must be a whole number, at least 1"),
        (["--rounds", "many"], "--rounds = 'many'"),
        (["--work", "S4", "--systems", "pfl"], "--systems = 'pfl': none of them does S4"),
        (["--out", __file__], "is a file; name a folder"),
        (["--speed"], "unrecognized arguments: --speed"),
    ],
)
def test_bad_flags(argv: list[str], told: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(argv) == 2
    assert told in capsys.readouterr().err


def test_flags_choose_works_and_systems() -> None:
    plan = options.parse(["--work", "S1,S3", "--systems", "flower,ours-loop,pfl", "--rounds", "3"]).works
    assert {work.group for work, _ in plan} == {"S1", "S3"} and all(work.goes == 3 for work, _ in plan)
    assert {work.name: systems for work, systems in plan}["S3-10-of-100"] == ("ours-loop", "flower")
    everything = options.parse([]).works
    assert [work for work, _ in everything] == list(catalogue.WORKS) and everything[0][1] == catalogue.SYSTEMS


def test_a_quick_run_has_one_work_of_each_group_on_random_arrays() -> None:
    small = catalogue.quick(catalogue.WORKS)
    assert [work.group for work in small] == list(catalogue.GROUPS)
    assert all(work.random and work.clients <= 1000 and work.goes <= 2 for work in small)


def test_every_system_has_its_file() -> None:
    folder = Path(catalogue.__file__).parents[1] / "systems"
    assert set(SYSTEMS) == set(catalogue.SYSTEMS) and all(
        (folder / f"{system.module}.py").is_file() for system in SYSTEMS.values()
    )


def test_another_system_begins_each_turn() -> None:
    assert [_turn(["a", "b", "c"], go)[0] for go in range(4)] == ["a", "b", "c", "a"]
    assert _turn(["a", "b", "c"], 2) == ["c", "a", "b"]


def test_moments_are_those_of_pixels_in_0_1() -> None:
    """One channel of 0 and 255 in equal numbers: mean and deviation 1/2."""
    mean, std = moments(torch.tensor([0, 255, 255, 0], dtype=torch.uint8).reshape(2, 1, 1, 2))
    assert mean.shape == (1, 1, 1) and mean.item() == 0.5 and std.item() == 0.5


def test_flop_of_a_linear_layer(tmp_path: Path) -> None:
    """784 x 10 multiplications and additions forward, as many for the weight's gradient, none for the pixels'."""
    work = replace(TINY, clients=1, cohort=1)
    prepare(work, tmp_path, 1)
    assert gflop_a_sample(World({"folder": str(tmp_path), "work": work.to_dict()})) == pytest.approx(
        2 * 2 * 784 * 10 / 1e9
    )


@pytest.mark.parametrize("partition", [{"name": "iid"}, {"name": "dirichlet", "alpha": 0.3}], ids=["even", "uneven"])
def test_the_bare_loop_does_what_ours_does(partition: dict[str, Any], tmp_path: Path) -> None:
    """With all of a client's samples in one batch no order is left to chance: the same model after three rounds."""
    work = replace(TINY, partition=partition, batch=1000)
    prepare(work, tmp_path, 3)
    world = World({"folder": str(tmp_path), "work": work.to_dict()})
    bare = Bare(world)
    done = [bare.round(number) for number in range(3)]
    outcome = run(**settings(work, 3, str(tmp_path / "runs"), engine="loop"))
    assert [facts["examples"] for facts in done] == outcome.log.rounds["examples"].tolist()[1:]
    for name, value in bare.module.state_dict().items():
        torch.testing.assert_close(value, outcome.model[name], rtol=1e-4, atol=1e-6)


def test_standardised_inputs(tmp_path: Path) -> None:
    prepare(replace(TINY, standardize=True), tmp_path, 1)
    world = World({"folder": str(tmp_path), "work": TINY.to_dict()})
    everything = torch.cat([world.client(c)[0] for c in range(len(world))])
    assert abs(float(everything.mean())) < 1e-4 and abs(float(everything.std()) - 1) < 1e-4
    assert len(np.unique(world.indices)) == TINY.train


def test_the_processor_is_named(tmp_path: Path) -> None:
    (tmp_path / "cpuinfo").write_text("processor : 0\nmodel name\t: A CPU @ 2 GHz\n")
    assert processor(tmp_path / "cpuinfo") == "A CPU @ 2 GHz"
    assert processor(tmp_path / "none")


def test_a_child_that_cannot_start_is_failed_with_its_reason(tmp_path: Path) -> None:
    job = {"folder": str(tmp_path), "work": TINY.to_dict(), "cores": 1, "options": {}, "goes": 1}
    child = Child(YARDSTICK, job, f"test-{os.getpid()}-child", tmp_path / "log", 60)
    with pytest.raises(Stopped, match="FileNotFoundError") as stopped:
        child.start()
    assert stopped.value.status == "failed" and "Traceback" in child.tail()
    child.close()
    assert not process_tree.tree(child.mark)


@pytest.mark.skipif(sys.version_info >= (3, 12), reason="BlazeFL may be installed")
def test_a_system_whose_package_is_missing_is_unavailable(tmp_path: Path) -> None:
    job = {"folder": str(tmp_path), "work": TINY.to_dict(), "cores": 1, "options": {}, "goes": 1}
    child = Child(SYSTEMS["blazefl"], job, f"test-{os.getpid()}-missing", tmp_path / "log", 60)
    with pytest.raises(Stopped, match="Python >= 3.12") as stopped:
        child.start()
    assert stopped.value.status == "unavailable"
    child.close()


def sleeper(mark: str) -> "subprocess.Popen[str]":
    """A marked process with a child of its own that hides its mark."""
    code = (
        "import os, subprocess, sys, time\nenv = {k: v for k, v in os.environ.items() if not k.startswith('FL_SIM')}\n"
    )
    code += "subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)'], env=env)\nprint('up', flush=True)\ntime.sleep(60)"
    process = subprocess.Popen(
        [sys.executable, "-c", code], env={**os.environ, process_tree.MARK: mark}, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None and process.stdout.readline() == "up\n"
    return process


def wait_for(what: Any, limit_s: float = 20.0) -> None:
    end = time.monotonic() + limit_s
    while not what() and time.monotonic() < end:
        time.sleep(0.02)
    assert what()


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_a_tree_is_frozen_measured_and_killed_with_what_hides_in_it() -> None:
    mark = f"test-{os.getpid()}-tree"
    process = sleeper(mark)
    found = process_tree.tree(mark)
    assert len(found) == 2 and process.pid in found
    process_tree.freeze(mark)
    wait_for(lambda: all(p.status() == psutil.STATUS_STOPPED for p in found.values()))
    pss, rss = process_tree.memory(mark)
    assert process_tree.cpu_s(mark) > 0
    assert 0 < pss <= rss
    process_tree.thaw(mark)
    wait_for(lambda: all(p.status() != psutil.STATUS_STOPPED for p in found.values()))
    process_tree.freeze(mark)
    process_tree.kill(mark)
    assert not process_tree.tree(mark) and process.wait() == -9


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_the_guard_ends_children_when_its_pipe_closes(tmp_path: Path) -> None:
    mark, folder = f"test-{os.getpid()}-guard", tmp_path / "moment"
    folder.mkdir()
    process = sleeper(mark)
    command = [sys.executable, "-m", "experiments.bench.children.guard", mark, str(folder)]
    guard = subprocess.Popen(command, stdin=subprocess.PIPE, cwd=Path(__file__).parents[2])
    assert guard.stdin is not None and process.poll() is None
    guard.stdin.close()
    assert guard.wait() == 0 and process.wait() == -9
    assert not process_tree.tree(mark) and not folder.exists()
