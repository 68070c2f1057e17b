"""The benchmark: its arithmetic, its table, its flags, and its child processes."""

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
from experiments.bench.children.measurements import SystemMeasurements, WorkMeasurements
from experiments.bench.interleaving import turn_order
from experiments.bench.systems import SYSTEMS, YARDSTICK
from experiments.bench.systems.bare import Bare
from experiments.bench.systems.yardstick import gflop_a_sample
from experiments.bench.tables import cpu_table, result_rows
from experiments.bench.workloads import catalogue
from experiments.bench.workloads.prepare import moments, prepare
from experiments.bench.workloads.shared_inputs import SharedInputs
from experiments.bench.workloads.workload_config import settings
from experiments.provenance import processor
from experiments.run import run

S1, S2 = catalogue.WORKS[0], catalogue.WORKS[2]
TINY = replace(S2, clients=6, cohort=3, train=120, test=20, random=True, whole=False)


def measured(system: str, seconds: list[float], examples: int = 100, **more: Any) -> SystemMeasurements:
    facts = [{"examples": examples, "updates": 10} for _ in seconds]
    return SystemMeasurements(system, seconds=seconds, facts=facts, **more)


def results(*systems: SystemMeasurements, work: catalogue.Work = S1) -> dict[str, Any]:
    yardstick = [
        {"gflops": 0.0, "gflop_a_sample": 0.5},
        {"gflops": 80.0, "gflop_a_sample": 0.5},
        {"gflops": 120.0, "gflop_a_sample": 0.5},
    ]
    work_measurements = WorkMeasurements(work, list(systems), {"random": False, "parameters": 7}, yardstick)
    return {
        "machine": {"cpu": "a processor", "cores": 2, "memory_gib": 8.0, "system": "Linux"},
        "versions": {"torch": "2", "pfl": None},
        "commit": "abc",
        "date": "2026-01-01",
        "memory": "pss",
        "works": [result_rows.work_row(work_measurements)],
        "rows": result_rows.rows(work_measurements),
    }


def test_ratios_are_taken_turn_by_turn() -> None:
    """Something slows both systems twofold in the second turn, which cancels in the ratios 2/1 and 4/2; 9/3 is 3."""
    done = results(measured("ours-loop", [2.0, 4.0, 9.0]), measured("bare-careful", [1.0, 2.0, 3.0]))
    assert done["rows"][0]["ratio"] == {"median": 2.0, "min": 2.0, "max": 3.0}
    assert done["rows"][1]["ratio"] == {"median": 1.0, "min": 1.0, "max": 1.0}


def test_figures_of_a_row() -> None:
    """100 samples of .5 GFLOP in 1, 2, 4 s: 50, 25, 12.5 GFLOP/s. The median is a quarter of a matrix product's 100."""
    ours = measured("ours-loop", [1.0, 2.0, 4.0], startup_s=[3.0], setup_s=[1.0], peak=(5, 9), accuracy=0.5)
    row = results(ours)["rows"][0]
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
    row = results(measured("bare", [1.0], accuracy=0.1), work=replace(S1, random=True))["rows"][0]
    assert row["accuracy"] is None


def test_a_system_that_trained_on_other_samples_is_named() -> None:
    done = results(measured("ours-loop", [1.0], 90), measured("bare", [1.0]), measured("bare-careful", [1.0]))
    assert [row["same_work"] for row in done["rows"]] == [False, True, True]
    assert "- ours-loop: did other work: [90] samples." in cpu_table.markdown(done)


def test_a_system_without_figures_is_listed_with_its_reason() -> None:
    done = results(
        measured("bare-careful", [1.0]),
        SystemMeasurements("pfl", "unavailable", "not installed"),
        SystemMeasurements("bare", "failed", "ValueError: x\ny"),
    )
    text = cpu_table.markdown(done)
    assert "- pfl: not available: not installed" in text and "- bare: failed: ValueError: x y" in text
    assert json.loads(json.dumps(done, allow_nan=False)) == done


def test_the_table_is_markdown_with_as_many_cells_in_each_line() -> None:
    text = cpu_table.markdown(
        results(measured("ours-loop", [2.0, 4.0], accuracy=0.377), measured("bare-careful", [1.0, 2.0]))
    )
    lines = [line for line in text.splitlines() if line.startswith("|")]
    assert len({line.count("|") for line in lines}) == 1 and len(lines) == 4
    assert "*ours-loop*: this simulator, engine loop, one process; *bare-careful*: " in text
    assert lines[2].startswith("| ours-loop    | 3.00 (2.00-4.00)") and "0.377" in lines[2] and " 2.00 " in lines[2]


@pytest.mark.parametrize(
    "argv, message",
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
def test_bad_flags(argv: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(argv) == 2
    assert message in capsys.readouterr().err


def test_flags_choose_works_and_systems() -> None:
    plan = options.parse(["--work", "S1,S3", "--systems", "flower,ours-loop,pfl", "--rounds", "3"]).works
    assert {work.group for work, _ in plan} == {"S1", "S3"} and all(work.goes == 3 for work, _ in plan)
    assert {work.name: systems for work, systems in plan}["S3-10-of-100"] == ("ours-loop", "flower")
    everything = options.parse([]).works
    assert [work for work, _ in everything] == list(catalogue.WORKS) and everything[0][
        1
    ] == catalogue.OURS + catalogue.OTHERS


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
    assert [turn_order(["a", "b", "c"], go)[0] for go in range(4)] == ["a", "b", "c", "a"]
    assert turn_order(["a", "b", "c"], 2) == ["c", "a", "b"]


def test_moments_are_those_of_pixels_in_0_1() -> None:
    """One channel of 0 and 255 in equal numbers: mean and deviation 1/2."""
    mean, std = moments(torch.tensor([0, 255, 255, 0], dtype=torch.uint8).reshape(2, 1, 1, 2))
    assert mean.shape == (1, 1, 1) and mean.item() == 0.5 and std.item() == 0.5


def test_flop_of_a_linear_layer(tmp_path: Path) -> None:
    """784 x 10 multiplications and additions forward, as many for the weight's gradient, none for the pixels'."""
    work = replace(TINY, clients=1, cohort=1)
    prepare(work, tmp_path, 1)
    assert gflop_a_sample(SharedInputs({"folder": str(tmp_path), "work": work.to_dict()})) == pytest.approx(
        2 * 2 * 784 * 10 / 1e9
    )


@pytest.mark.parametrize("partition", [{"name": "iid"}, {"name": "dirichlet", "alpha": 0.3}], ids=["even", "uneven"])
def test_the_bare_loop_does_what_ours_does(partition: dict[str, Any], tmp_path: Path) -> None:
    """With all of a client's samples in one batch no order is left to chance: the same model after three rounds."""
    work = replace(TINY, partition=partition, batch=1000)
    prepare(work, tmp_path, 3)
    inputs = SharedInputs({"folder": str(tmp_path), "work": work.to_dict()})
    bare = Bare(inputs)
    done = [bare.round(number) for number in range(3)]
    outcome = run(**settings(work, 3, str(tmp_path / "runs"), engine="loop"))
    assert [facts["examples"] for facts in done] == outcome.log.rounds["examples"].tolist()[1:]
    for name, value in bare.module.state_dict().items():
        torch.testing.assert_close(value, outcome.model[name], rtol=1e-4, atol=1e-6)


def test_standardised_inputs(tmp_path: Path) -> None:
    prepare(replace(TINY, standardize=True), tmp_path, 1)
    inputs = SharedInputs({"folder": str(tmp_path), "work": TINY.to_dict()})
    everything = torch.cat([inputs.client(c)[0] for c in range(len(inputs))])
    assert abs(float(everything.mean())) < 1e-4 and abs(float(everything.std()) - 1) < 1e-4
    assert len(np.unique(inputs.indices)) == TINY.train


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
    code += "subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)'], env=env)\n"
    code += "print('up', flush=True)\ntime.sleep(60)"
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
