"""``python -m experiments.bench.gpu``: all that is to be measured on one GPU, in one command. No paper.

S1 to its end (``pfl-cifar10``, 1500 rounds with 150 evaluations) and twice its start for the digest; four Ray workers on a
quarter of the GPU each against one on the whole; vmap against loop by cohort and model; the GPU against the CPU in float64;
and what the block step gains from other convolutions, layouts and precisions. Each part is a process of its own.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from experiments.bench.machine import commit, machine, versions
from fl_sim import load, tree

Row = dict[str, Any]
COHORTS = (1, 10, 50, 200)
MODELS = ("lenet", "cnn", "resnet18")


class Runs:
    """Runs of ``experiments.run`` on the device, each in a process of its own."""

    def __init__(self, device: str, rounds: int, folder: Path) -> None:
        self.device, self.rounds, self.folder = device, rounds, folder

    def __call__(self, *words: str) -> Row:
        """One run's summary, with its ``wall`` seconds from start to end of the process; ``error`` where it failed."""
        command = [sys.executable, "-m", "experiments.run", *words, "--quiet", "--json", "--out", str(self.folder)]
        start = time.perf_counter()
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        wall = time.perf_counter() - start
        if done.returncode:
            return {"error": done.stderr.strip()[-2000:], "wall": wall}
        summary: Row = json.loads(done.stdout.strip().splitlines()[-1])
        return {**summary, "wall": wall}

    def timed(self, *words: str, rounds: int) -> Row:
        """A short run on this device: its digest and the median seconds of a round after the first."""
        summary = self(*words, "--device", self.device, "--rounds", str(rounds), "--evaluate_every", str(rounds))
        if "error" in summary:
            return summary
        seconds = load(summary["run_dir"]).rounds["seconds"].iloc[2:]
        return {"seconds_round": float(seconds.median()), "digest": summary["digest"], "run_dir": summary["run_dir"]}


def whole(runs: Runs) -> Row:
    """S1 from start to end, start-up included."""
    summary = runs("pfl-cifar10", "--device", runs.device, "--block_size", "50", "--rounds", str(runs.rounds))
    if "error" in summary:
        return summary
    rounds = load(summary["run_dir"]).rounds
    evaluated = rounds["accuracy"].dropna()
    return {
        "wall_seconds": summary["wall"],
        "run_seconds": summary["seconds"],
        "seconds_round": float(rounds["seconds"].iloc[2:].median()),
        "seconds_evaluation": float(rounds.loc[evaluated.index, "evaluate_seconds"].iloc[1:].median()),
        "accuracy_last_5": float(evaluated.tail(5).mean()),
        "digest": summary["digest"],
    }


def repeated(runs: Runs) -> Row:
    """The same bits from run to run."""
    two = [runs.timed("pfl-cifar10", "--block_size", "50", rounds=min(runs.rounds, 20)) for _ in range(2)]
    return {"equal": "digest" in two[0] and two[0]["digest"] == two[1].get("digest"), "runs": two}


def workers(runs: Runs) -> Row:
    """Four workers on a quarter of the GPU each, and one on the whole."""
    few, made = min(runs.rounds, 30), {}
    for count, share in ((1, 1.0), (4, 0.25)):
        gpus = ["--ray.num_gpus", str(share)] if runs.device != "cpu" else []
        flags = ["--engine", "ray", "--ray.num_workers", str(count), *gpus, "--block_size", "13"]
        made[f"{count} x {share}"] = runs.timed("pfl-cifar10", *flags, rounds=few)
    made["one process"] = runs.timed("pfl-cifar10", "--block_size", "13", "--engine", "vmap", rounds=few)
    return {**made, "equal": len({row.get("digest") for row in made.values()}) == 1}


def engines(runs: Runs) -> Row:
    """vmap against loop, by cohort and model."""
    made: Row = {}
    for model in MODELS:
        for cohort in COHORTS if runs.rounds > 10 else COHORTS[:2]:
            flags = ["--model", model, "--cohort", str(cohort), "--block_size", str(cohort)]
            pair = {
                engine: runs.timed("pfl-cifar10", *flags, "--engine", engine, rounds=min(runs.rounds, 5)) for engine in ("loop", "vmap")
            }
            known = all("seconds_round" in row for row in pair.values())
            made[f"{model} x {cohort}"] = {
                **pair,
                "loop_over_vmap": pair["loop"]["seconds_round"] / pair["vmap"]["seconds_round"] if known else None,
            }
    return made


def against_cpu(runs: Runs) -> Row:
    """The greatest relative distance of models after three rounds in float64, GPU against CPU; wanted: 1e-9."""
    flags = ["pfl-cifar10", "--cohort", "4", "--dtype", "float64", "--rounds", "3", "--evaluate_every", "3", "--block_size", "4"]
    made: Row = {}
    for engine in ("loop", "vmap"):
        pair = [runs(*flags, "--engine", engine, "--device", device) for device in ("cpu", runs.device)]
        if any("error" in summary for summary in pair):
            made[engine] = pair
            continue
        cpu, gpu = (load(summary["run_dir"]).model() for summary in pair)
        made[engine] = float(tree.norm(tree.sub(gpu, cpu)) / tree.norm(cpu))
    return made


def together(runs: Runs) -> Row:
    """Fifteen runs of LeNet as one batch, against three of them one after another, times five."""
    flags = ["pfl-cifar10", "--model", "lenet", "--cohort", "10", "--device", runs.device, "--rounds", "10", "--evaluate_every", "10"]
    batch = runs(*flags, "--vmap_over", "local.lr=.01,.03,.1", "--seed", "0..4")
    alone = runs(*flags, "--engine", "vmap", "--seed", "0..2")
    if "error" in batch or "error" in alone:
        return {"batch": batch, "alone": alone}
    seconds = max(run["seconds"] for run in batch["runs"]), 5 * sum(run["seconds"] for run in alone["runs"])
    return {"batch_seconds": seconds[0], "one_after_another_seconds": seconds[1], "ratio": seconds[1] / seconds[0]}


def precisions(runs: Runs) -> Row:
    """S1's round in full float32, TF32 and bfloat16."""
    given = ("full", "tf32", "bf16") if runs.device != "cpu" else ("full", "bf16")
    few = min(runs.rounds, 10)
    return {p: runs.timed("pfl-cifar10", "--block_size", "50", "--precision", p, rounds=few) for p in given}


def steps(runs: Runs) -> Row:
    """The block step taken apart: see ``experiments.bench.gpu_steps``."""
    command = [sys.executable, "-m", "experiments.bench.gpu_steps", runs.device, "50" if runs.rounds > 10 else "2"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return {"error": done.stderr.strip()[-2000:]} if done.returncode else json.loads(done.stdout.strip().splitlines()[-1])


PARTS: dict[str, Callable[[Runs], Row]] = {
    "whole": whole,
    "repeated": repeated,
    "against_cpu": against_cpu,
    "precisions": precisions,
    "workers": workers,
    "engines": engines,
    "together": together,
    "steps": steps,
}


def gpu(device: str) -> str:
    """What the device is called."""
    return "cpu" if device == "cpu" or not torch.cuda.is_available() else torch.cuda.get_device_name(device)


def main(argv: Sequence[str] | None = None) -> int:
    """The command. 0 if every part was measured, 1 if one failed, 2 for bad flags."""
    parser = argparse.ArgumentParser(prog="python -m experiments.bench.gpu", description=__doc__)
    parser.add_argument("--device", default="cuda", help="cuda, cuda:N; cpu tries the script out")
    parser.add_argument("--rounds", type=int, default=1500, help="of S1; others take fewer")
    parser.add_argument("--parts", default=",".join(PARTS), help="which, in this order")
    parser.add_argument("--out", type=Path, default=Path("experiments/results/gpu.json"), help="file of the figures")
    asked = parser.parse_args(argv)
    unknown = sorted(set(asked.parts.split(",")) - set(PARTS))
    if unknown:
        print(f"error: --parts = {unknown[0]!r}: unknown; choose of {', '.join(PARTS)}", file=sys.stderr)
        return 2
    words = sys.argv[1:] if argv is None else argv
    figures: Row = {
        "machine": {**machine(), "device": gpu(asked.device)},
        "versions": versions(),
        "commit": commit(Path(__file__).parents[2]),
        "command": " ".join(["python -m experiments.bench.gpu", *words]),
    }
    with tempfile.TemporaryDirectory() as folder:
        runs = Runs(asked.device, asked.rounds, Path(folder))
        for name in asked.parts.split(","):
            figures[name] = PARTS[name](runs)
            asked.out.parent.mkdir(parents=True, exist_ok=True)
            asked.out.write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")  # what was measured is kept, whatever comes
            print(json.dumps({name: figures[name]}), flush=True)
    return int('"error"' in json.dumps(figures))


if __name__ == "__main__":
    sys.exit(main())
