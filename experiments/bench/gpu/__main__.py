"""``python -m experiments.bench.gpu``: all that is to be measured on one GPU, in one command. No paper.

S1 to its end (``pfl-cifar10``, 1500 rounds with 150 evaluations); its start twice for the digest, and with and without CUDA
graphs; the GPU against the CPU in float64; precisions; pfl-research on the same GPU where it is installed; four Ray workers on
a quarter of the GPU each against one on the whole; vmap against loop by cohort and model; fifteen runs as one batch; and what
the block step gains from other forms of its convolutions.
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
MODELS = ("lenet", "cnn", "resnet18")


class Runs:
    """Runs of ``experiments.run`` on the device."""

    def __init__(self, device: str, rounds: int, folder: Path) -> None:
        self.device, self.rounds, self.folder = device, rounds, folder

    def __call__(self, *words: str) -> Row:
        """A run in a process of its own: its summary, with the ``wall`` seconds of the process; ``error`` where it failed."""
        start = time.perf_counter()
        row = command(
            "experiments.run", *words, "--device", self.device, "--quiet", "--json", "--out", str(self.folder)
        )
        return {**row, "wall": time.perf_counter() - start}

    def timed(self, *words: str, rounds: int) -> Row:
        """A short run in a process of its own: digest, and median seconds of a round after the first two."""
        return brief(self(*words, "--rounds", str(rounds), "--evaluate_every", str(rounds)))

    def here(self, *words: str, rounds: int) -> Row:
        """As ``timed`` in this process; adds the most memory that torch held on the GPU."""
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
    """What a short run shows."""
    if summary.get("error"):
        return summary
    log = load(summary["run_dir"])
    noted = [event for event in log.events["event"] if event in ("fallback", "out_of_memory")]
    row = {
        "seconds_round": float(log.rounds["seconds"].iloc[3:].median()),
        "digest": summary["digest"],
        "run_dir": summary["run_dir"],
    }
    return {**row, **({"events": noted} if noted else {})}


def whole(runs: Runs) -> Row:
    """S1 from start to end, start-up included, in TF32: what PyTorch's convolutions, and so pfl's, compute in by default.

    Two rounds come before, which decode the pictures, once for all runs of a machine, and read CUDA's libraries from disk.
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


def repeated(runs: Runs) -> Row:
    """The same bits from run to run, and with or without CUDA graphs; what these gain."""
    few = min(runs.rounds, 20)
    rows = [runs.here("pfl-cifar10", "--block_size", "50", rounds=few) for _ in range(2)]
    known, cuda_graphs.MAX_KEYS = cuda_graphs.MAX_KEYS, 0
    try:
        rows.append(runs.here("pfl-cifar10", "--block_size", "50", rounds=few))
    finally:
        cuda_graphs.MAX_KEYS = known
    return {"equal": same(rows), "graphs": rows[0], "again": rows[1], "no graphs": rows[2]}


def same(rows: Sequence[Row]) -> bool:
    """Whether all ended with the same bits."""
    return len({row.get("digest", id(row)) for row in rows}) == 1


def workers(runs: Runs) -> Row:
    """Four workers on a quarter of the GPU each, and one on the whole."""
    few, made = min(runs.rounds, 20), {}
    for count, share in ((1, 1.0), (4, 0.25)):
        gpus = ["--ray.num_gpus", str(share)] if runs.device != "cpu" else []
        flags = ["--engine", "ray", "--ray.num_workers", str(count), *gpus, "--block_size", "13"]
        made[f"{count} x {share}"] = runs.timed("pfl-cifar10", *flags, rounds=few)
    made["one process"] = runs.here("pfl-cifar10", "--block_size", "13", "--engine", "vmap", rounds=few)
    return {**made, "equal": same(list(made.values()))}


def engines(runs: Runs) -> Row:
    """vmap against loop, by cohort and model. Of the loop, whose clients come one after another, ten at most are run and scaled up."""
    made: Row = {}
    for model in MODELS:
        for cohort in COHORTS if runs.rounds > 10 else COHORTS[:2]:
            pair = {}
            for engine, clients in (("loop", min(cohort, 10)), ("vmap", cohort)):
                flags = ["--model", model, "--cohort", str(clients), "--block_size", str(clients), "--engine", engine]
                pair[engine] = runs.here("pfl-cifar10", *flags, rounds=4)
            known = all("seconds_round" in row for row in pair.values())
            ratio = (
                max(cohort / 10, 1) * pair["loop"]["seconds_round"] / pair["vmap"]["seconds_round"] if known else None
            )
            made[f"{model} x {cohort}"] = {**pair, "loop_over_vmap": ratio}
    return made


def against_cpu(runs: Runs) -> Row:
    """The greatest relative distance of models after three rounds in float64, GPU against CPU; wanted: 1e-9."""
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
    made: Row = {}
    for engine in ("loop", "vmap"):
        pair = [
            Runs(device, 3, runs.folder).here(*flags, "--engine", engine, rounds=3) for device in ("cpu", runs.device)
        ]
        if any("error" in row for row in pair):
            made[engine] = pair
            continue
        cpu, gpu = (load(row["run_dir"]).model() for row in pair)
        made[engine] = float(tree.norm(tree.sub(gpu, cpu)) / tree.norm(cpu))
    return made


def together(runs: Runs) -> Row:
    """Fifteen runs of LeNet as one batch, against one after another: on vmap three of them times five, on the loop one times fifteen."""
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
    """S1's round in full float32, TF32 and bfloat16."""
    given = ("full", "tf32", "bf16") if runs.device != "cpu" else ("full", "bf16")
    few = min(runs.rounds, 20)
    return {p: runs.here("pfl-cifar10", "--block_size", "50", "--precision", p, rounds=few) for p in given}


def pfl(runs: Runs) -> Row:
    """S1's round by pfl-research in one process on the same device: see ``experiments.bench.gpu.pfl_on_gpu``."""
    return command("experiments.bench.gpu.pfl_on_gpu", runs.device, str(min(runs.rounds, 20)))


def steps(runs: Runs) -> Row:
    """The block step taken apart: see ``experiments.bench.gpu.steps``."""
    clients = "50" if runs.rounds > 10 else "2"
    return {p: command("experiments.bench.gpu.steps", runs.device, clients, p) for p in ("full", "tf32")}


PARTS: dict[str, Callable[[Runs], Row]] = {
    "whole": whole,
    "repeated": repeated,
    "against_cpu": against_cpu,
    "precisions": precisions,
    "pfl": pfl,
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
        "commit": commit(ROOT),
        "command": " ".join(["python -m experiments.bench.gpu", *words]),
    }
    with tempfile.TemporaryDirectory() as folder:
        runs = Runs(asked.device, asked.rounds, Path(folder))
        for name in asked.parts.split(","):
            start = time.perf_counter()
            figures[name] = {**PARTS[name](runs), "took_s": round(time.perf_counter() - start, 1)}
            asked.out.parent.mkdir(parents=True, exist_ok=True)
            asked.out.write_text(
                json.dumps(figures, indent=2) + "\n", encoding="utf-8"
            )  # what was measured is kept, whatever comes
            print(json.dumps({name: figures[name]}), flush=True)
    return int('"error"' in json.dumps(figures))


if __name__ == "__main__":
    sys.exit(main())
