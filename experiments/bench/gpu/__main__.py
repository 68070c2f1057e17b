"""``python -m experiments.bench.gpu``: measures everything that concerns one GPU, part by part (``--parts``).

Its parts: the whole of S1 (``pfl-cifar10``, 1500 rounds with 150 evaluations); its first rounds twice, to compare
digests, and without CUDA graphs; the GPU against the CPU in float64; the precisions; pfl-research on the same GPU if it
is installed; four Ray workers on a quarter of the GPU each against one on all of it; vmap against loop by cohort and
model; fifteen runs as one batch; and other forms of the training step.
"""

import argparse
import gc
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from experiments.bench import ROOT
from experiments.config.command_line import parse
from experiments.installation import child_environment
from experiments.provenance import commit, machine, versions
from experiments.runs.execute import execute
from experiments.runs.setup import build
from fl_sim import load, tree
from fl_sim.kernels import cuda_graphs

Row = dict[str, Any]
COHORTS = (1, 10, 50, 200)
"""Numbers of clients in a round, for vmap against loop."""
MODELS = ("lenet", "cnn", "resnet18")
"""Models for vmap against loop."""


class Runs:
    """Starts runs of ``experiments.run`` on one device.

    ``rounds`` is the number of rounds of the longest run; ``folder`` receives the run folders.
    """

    def __init__(self, device: str, rounds: int, folder: Path) -> None:
        self.device, self.rounds, self.folder = device, rounds, folder

    def __call__(self, *words: str) -> Row:
        """A run in a process of its own: its summary and ``wall``, the process's seconds; ``error`` if it failed."""
        start = time.perf_counter()
        row = command(
            "experiments.run", *words, "--device", self.device, "--quiet", "--json", "--out", str(self.folder)
        )
        return {**row, "wall": time.perf_counter() - start}

    def in_new_process(self, *words: str, rounds: int) -> Row:
        """A short run in a process of its own: see ``brief``."""
        return brief(self(*words, "--rounds", str(rounds), "--evaluate_every", str(rounds)))

    def in_this_process(self, *words: str, rounds: int) -> Row:
        """A short run in this process: see ``brief``; adds ``gpu_mb``, torch's largest memory on the GPU in MiB."""
        some = (
            "--device",
            self.device,
            "--rounds",
            str(rounds),
            "--evaluate_every",
            str(rounds),
            "--out",
            str(self.folder),
        )
        [config] = parse([*some, *words]).configs
        gc.collect()
        if self.device != "cpu":
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats(self.device)
        summary, error = execute(build(config), quiet=True)
        row = brief(summary if error is None else {"error": f"{type(error).__name__}: {error}"})
        return row if self.device == "cpu" else {**row, "gpu_mb": torch.cuda.max_memory_allocated(self.device) // 2**20}


def command(module: str, *words: str) -> Row:
    """A module's last line of output, which is JSON; ``error`` where it failed."""
    command, env = [sys.executable, "-m", module, *words], os.environ | child_environment()
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
    if done.returncode:
        return {"error": done.stderr.strip()[-2000:]}
    row: Row = json.loads(done.stdout.strip().splitlines()[-1])
    return row


def brief(summary: Row) -> Row:
    """Of a short run: the median seconds of a round after the first two, digest, folder and events of interest."""
    if summary.get("error"):
        return summary
    log = load(summary["run_dir"])
    notable = [event for event in log.events["event"] if event in ("fallback", "out_of_memory")]
    row = {
        "seconds_round": float(log.rounds["seconds"].iloc[3:].median()),
        "digest": summary["digest"],
        "run_dir": summary["run_dir"],
    }
    return {**row, **({"events": notable} if notable else {})}


def full_run(runs: Runs) -> Row:
    """S1 from start to end, start-up included, in TF32, the default of PyTorch's convolutions and so of pfl's.

    A run of two rounds comes before: it decodes the images into the cache and reads CUDA's libraries from disk.
    """
    precision, threads = "full" if runs.device == "cpu" else "tf32", str(min(8, os.cpu_count() or 1))
    flags = ["pfl-cifar10", "--block_size", "50", "--precision", precision, "--threads", threads, "--rounds"]
    first, summary = runs(*flags, "2"), runs(*flags, str(runs.rounds))
    if first.get("error") or summary.get("error"):
        return first if first.get("error") else summary
    rounds = load(summary["run_dir"]).rounds
    evaluated = rounds["accuracy"].dropna()
    return {
        "precision": precision,
        "threads": int(threads),
        "wall_seconds": summary["wall"],
        "run_seconds": summary["seconds"],
        "two_rounds_before_seconds": first["wall"],
        "seconds_round": float(rounds["seconds"].iloc[3:].median()),
        "seconds_evaluation": float(rounds.loc[evaluated.index, "evaluate_seconds"].iloc[1:].median()),
        "accuracy_last_5": float(evaluated.tail(5).mean()),
        "digest": summary["digest"],
    }


def repeated_runs(runs: Runs) -> Row:
    """The first rounds of S1 twice and without CUDA graphs: whether the digests are equal, and the seconds of each."""
    few = min(runs.rounds, 20)
    rows = [runs.in_this_process("pfl-cifar10", "--block_size", "50", rounds=few) for _ in range(2)]
    known, cuda_graphs.MAX_KEYS = cuda_graphs.MAX_KEYS, 0
    try:
        rows.append(runs.in_this_process("pfl-cifar10", "--block_size", "50", rounds=few))
    finally:
        cuda_graphs.MAX_KEYS = known
    return {"equal": same_digest(rows), "graphs": rows[0], "again": rows[1], "no graphs": rows[2]}


def same_digest(rows: Sequence[Row]) -> bool:
    """Whether all runs ended with the same digest; a failed run has none and equals no other."""
    return len({row.get("digest", id(row)) for row in rows}) == 1


def ray_workers(runs: Runs) -> Row:
    """Four Ray workers on a quarter of the GPU each, one on all of it, and no Ray at all."""
    few, rows = min(runs.rounds, 20), {}
    for count, share in ((1, 1.0), (4, 0.25)):
        gpus = ["--ray.num_gpus", str(share)] if runs.device != "cpu" else []
        flags = ["--engine", "ray", "--ray.num_workers", str(count), *gpus, "--block_size", "13"]
        rows[f"{count} x {share}"] = runs.in_new_process("pfl-cifar10", *flags, rounds=few)
    rows["one process"] = runs.in_this_process("pfl-cifar10", "--block_size", "13", "--engine", "vmap", rounds=few)
    return {**rows, "equal": same_digest(list(rows.values()))}


def vmap_against_loop(runs: Runs) -> Row:
    """vmap against loop, by model and cohort.

    The loop trains clients one after another, so at most ten are run and their time is scaled to the cohort.
    """
    result: Row = {}
    for model in MODELS:
        for cohort in COHORTS if runs.rounds > 10 else COHORTS[:2]:
            pair = {}
            for engine, clients in (("loop", min(cohort, 10)), ("vmap", cohort)):
                flags = ["--model", model, "--cohort", str(clients), "--block_size", str(clients), "--engine", engine]
                pair[engine] = runs.in_this_process("pfl-cifar10", *flags, rounds=4)
            known = all("seconds_round" in row for row in pair.values())
            ratio = (
                max(cohort / 10, 1) * pair["loop"]["seconds_round"] / pair["vmap"]["seconds_round"] if known else None
            )
            result[f"{model} x {cohort}"] = {**pair, "loop_over_vmap": ratio}
    return result


def gpu_against_cpu(runs: Runs) -> Row:
    """Relative distance of GPU's and CPU's models after three rounds in float64, by engine; should be below 1e-9."""
    flags = [
        "pfl-cifar10",
        "--cohort",
        "4",
        "--dtype",
        "float64",
        "--block_size",
        "4",
        "--threads",
        str(os.cpu_count()),
    ]
    result: Row = {}
    for engine in ("loop", "vmap"):
        pair = [
            Runs(device, 3, runs.folder).in_this_process(*flags, "--engine", engine, rounds=3)
            for device in ("cpu", runs.device)
        ]
        if any("error" in row for row in pair):
            result[engine] = pair
            continue
        cpu, gpu = (load(row["run_dir"]).model() for row in pair)
        result[engine] = float(tree.norm(tree.sub(gpu, cpu)) / tree.norm(cpu))
    return result


def batch_of_runs(runs: Runs) -> Row:
    """Fifteen runs of LeNet as one batch, against one after another.

    Not all of the latter are run: three on vmap, scaled by five, and one on the loop, scaled by fifteen.
    """
    rounds = str(min(runs.rounds, 50))
    flags = ["pfl-cifar10", "--model", "lenet", "--cohort", "10", "--rounds", rounds, "--evaluate_every", rounds]
    batch = runs(*flags, "--vmap_over", "local.lr=.01,.03,.1", "--seed", "0..4")
    vmap, loop = runs(*flags, "--engine", "vmap", "--seed", "0..2"), runs(*flags, "--engine", "loop")
    if any(row.get("error") for row in (batch, vmap, loop)):
        return {"batch": batch, "vmap": vmap, "loop": loop}
    seconds = max(run["seconds"] for run in batch["runs"])
    alone = {"vmap": 5 * sum(run["seconds"] for run in vmap["runs"]), "loop": 15 * loop["seconds"]}
    return {"batch_seconds": seconds, **{k: {"seconds": v, "ratio": v / seconds} for k, v in alone.items()}}


def precisions(runs: Runs) -> Row:
    """A round of S1 in full float32, TF32 and bfloat16."""
    known = ("full", "tf32", "bf16") if runs.device != "cpu" else ("full", "bf16")
    few = min(runs.rounds, 20)
    return {p: runs.in_this_process("pfl-cifar10", "--block_size", "50", "--precision", p, rounds=few) for p in known}


def pfl_research(runs: Runs) -> Row:
    """A round of S1 in pfl-research, in one process on the same device: see ``experiments.bench.gpu.pfl_on_gpu``."""
    return command("experiments.bench.gpu.pfl_on_gpu", runs.device, str(min(runs.rounds, 20)))


def training_step_forms(runs: Runs) -> Row:
    """A training step in several forms: see ``experiments.bench.gpu.training_step``."""
    clients = "50" if runs.rounds > 10 else "2"
    return {p: command("experiments.bench.gpu.training_step", runs.device, clients, p) for p in ("full", "tf32")}


PARTS: dict[str, Callable[[Runs], Row]] = {
    "whole": full_run,
    "repeated": repeated_runs,
    "against_cpu": gpu_against_cpu,
    "precisions": precisions,
    "pfl": pfl_research,
    "workers": ray_workers,
    "engines": vmap_against_loop,
    "together": batch_of_runs,
    "steps": training_step_forms,
}
"""The functions that measure each part, by the name that ``--parts`` accepts."""


def device_name(device: str) -> str:
    """The model name of the device."""
    return "cpu" if device == "cpu" or not torch.cuda.is_available() else torch.cuda.get_device_name(device)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns 0 if every part was measured, 1 if one failed, 2 for invalid flags."""
    parser = argparse.ArgumentParser(prog="python -m experiments.bench.gpu", description=__doc__)
    parser.add_argument("--device", default="cuda", help="cuda or cuda:N; cpu only tries the script out")
    parser.add_argument("--rounds", type=int, default=1500, help="rounds of S1; other parts run fewer")
    parser.add_argument("--parts", default=",".join(PARTS), help="parts to measure, in this order, with commas between")
    parser.add_argument("--out", type=Path, default=Path("experiments/results/gpu.json"), help="file for the figures")
    arguments = parser.parse_args(argv)
    unknown = sorted(set(arguments.parts.split(",")) - set(PARTS))
    if unknown:
        print(f"error: --parts = {unknown[0]!r}: unknown; choose of {', '.join(PARTS)}", file=sys.stderr)
        return 2
    words = sys.argv[1:] if argv is None else argv
    figures: Row = {
        "machine": {**machine(), "device": device_name(arguments.device)},
        "versions": versions(),
        "commit": commit(ROOT),
        "command": " ".join(["python -m experiments.bench.gpu", *words]),
    }
    with tempfile.TemporaryDirectory() as folder:
        runs = Runs(arguments.device, arguments.rounds, Path(folder))
        for name in arguments.parts.split(","):
            start = time.perf_counter()
            figures[name] = {**PARTS[name](runs), "took_s": round(time.perf_counter() - start, 1)}
            arguments.out.parent.mkdir(parents=True, exist_ok=True)
            # Written after each part, so that a later failure loses nothing.
            arguments.out.write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")
            print(json.dumps({name: figures[name]}), flush=True)
    return int('"error"' in json.dumps(figures))


if __name__ == "__main__":
    sys.exit(main())
