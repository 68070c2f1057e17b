"""``python -m experiments.bench.sweep``: times fifteen runs as one batch (``--vmap_over``) and one after another.

MNIST, 100 clients IID of 600 samples, 10 a round, batches of 10, 60 steps: 3 learning rates x 5 seeds. One process, one
thread; the ways of running them take turns. For the models in ``batched_products.SIZES`` also the arithmetic alone.
"""

import argparse
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from experiments import provenance
from experiments.bench import ROOT
from experiments.bench.sweep import batched_products
from experiments.bench.tables.sweep_table import BY_HAND, WAYS
from experiments.config.command_line import parse
from experiments.run import runs_of


def run_seconds(words: Sequence[str]) -> float:
    """Seconds of the runs that the flags describe, from parsing them to the last summary. Raises a run's error."""
    start = time.perf_counter()
    for _, error in runs_of(parse(list(words))):
        if error is not None:
            raise error
    return time.perf_counter() - start


def measure(arguments: argparse.Namespace, model: str) -> dict[str, object]:
    """For each way of running: the median of its seconds, and of its ratios to the seconds of the batch."""
    common = [
        "--task",
        arguments.task,
        "--model",
        model,
        "--clients",
        arguments.clients,
        "--cohort",
        "10",
        "--local.batch_size",
        "10",
    ]
    common += [
        "--rounds",
        str(arguments.rounds),
        "--evaluate_every",
        str(arguments.rounds),
        "--seed",
        "0..4",
        "--quiet",
    ]
    turns: list[dict[str, float]] = []
    with tempfile.TemporaryDirectory() as folder:
        for _ in range(arguments.goes + 1):  # the first warms up
            seconds = {
                way: run_seconds([*common, *words, "--out", folder]) * (1 if way == "batch" else 3)
                for way, words in WAYS.items()
            }
            if model in batched_products.SIZES and arguments.task == "mnist":
                seconds[BY_HAND] = batched_products.seconds(model, 150, arguments.rounds)
            turns.append(seconds)
    return {
        way: {
            "seconds": statistics.median(turn[way] for turn in turns[1:]),
            "ratio": statistics.median(turn[way] / turn["batch"] for turn in turns[1:]),
        }
        for way in turns[0]
    }


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit code."""
    parser = argparse.ArgumentParser(prog="python -m experiments.bench.sweep", description=__doc__)
    parser.add_argument("--models", default="lr,2nn", help="models, with commas between")
    parser.add_argument("--task", default="mnist", help="the task")
    parser.add_argument("--clients", default="100", help="number of clients; 10 of them train in a round")
    parser.add_argument("--rounds", type=int, default=20, help="rounds of each run")
    parser.add_argument("--goes", type=int, default=3, help="timed turns, after one to warm up")
    parser.add_argument("--out", type=Path, help="file for the figures, such as sweep.json")
    arguments = parser.parse_args(argv)
    figures: dict[str, Any] = {
        "date": time.strftime("%Y-%m-%d"),
        "machine": provenance.machine(),
        "commit": provenance.commit(ROOT),
    }
    figures |= {"task": arguments.task, "sweep": {}}
    for model in arguments.models.split(","):
        figures["sweep"][model] = measure(arguments, model)
        print(json.dumps({model: figures["sweep"][model]}), flush=True)
        if arguments.out is not None:  # after each model, so that a later failure loses nothing
            arguments.out.write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
