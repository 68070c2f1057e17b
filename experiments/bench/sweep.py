"""``python -m experiments.bench.sweep``: fifteen runs as one batch (``--vmap_over``) against the same runs one after another. No paper.

MNIST, 100 clients IID of 600 samples, 10 a round, batches of 10, 60 steps: 3 learning rates x 5 seeds. One process, one
thread; the ways take turns. One line of JSON a model; for those that ``by_hand`` knows with the bare arithmetic of the batch.
"""

import argparse
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence

from experiments.bench import by_hand
from experiments.cli import parse
from experiments.run import runs_of

WAYS = {
    "batch": ["--vmap_over", "local.lr=.01,.03,.1"],
    "vmap, one after another": ["--engine", "vmap", "--local.lr", "0.03"],
    "loop, one after another": ["--engine", "loop", "--local.lr", "0.03"],
}
"""One after another: the five seeds at one learning rate, times three."""


def seconds(words: Sequence[str]) -> float:
    """From the flags to the last summary. Raises what made a run fail."""
    start = time.perf_counter()
    for _, error in runs_of(parse(list(words))):
        if error is not None:
            raise error
    return time.perf_counter() - start


def main(argv: Sequence[str] | None = None) -> int:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m experiments.bench.sweep", description=__doc__)
    parser.add_argument("--models", default="lr,2nn", help="which, with commas between")
    parser.add_argument("--task", default="mnist", help="a task")
    parser.add_argument("--clients", default="100", help="how many share it; 10 train a round")
    parser.add_argument("--rounds", type=int, default=20, help="rounds of each run")
    parser.add_argument("--goes", type=int, default=3, help="turns")
    asked = parser.parse_args(argv)
    for model in asked.models.split(","):
        common = ["--task", asked.task, "--model", model, "--clients", asked.clients, "--cohort", "10", "--local.batch_size", "10"]
        common += ["--rounds", str(asked.rounds), "--evaluate_every", str(asked.rounds), "--seed", "0..4", "--quiet"]
        took: dict[str, list[float]] = {}
        with tempfile.TemporaryDirectory() as folder:
            for go in range(asked.goes + 1):  # the first warms up
                spent = {way: seconds([*common, *words, "--out", folder]) * (1 if way == "batch" else 3) for way, words in WAYS.items()}
                if model in by_hand.SIZES and asked.task == "mnist":
                    spent["by hand"] = by_hand.seconds(model, 150, asked.rounds)
                if go:
                    took = {way: [*took.get(way, []), value] for way, value in spent.items()}
        ratios = {way: [a / b for a, b in zip(values, took["batch"], strict=True)] for way, values in took.items()}
        row = {way: {"seconds": statistics.median(took[way]), "ratio": statistics.median(ratios[way])} for way in took}
        print(json.dumps({"model": model, **row}), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
