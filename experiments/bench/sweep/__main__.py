"""``python -m experiments.bench.sweep``: fifteen runs as one batch (``--vmap_over``) against the same runs one after another. No paper.

MNIST, 100 clients IID of 600 samples, 10 a round, batches of 10, 60 steps: 3 learning rates x 5 seeds. One process, one
thread; the ways take turns. For models that ``by_hand`` knows also the bare arithmetic of the batch.
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
from experiments.bench.sweep import by_hand
from experiments.bench.tables.sweep_table import HAND, WAYS
from experiments.config.command_line import parse
from experiments.run import runs_of


def taken(words: Sequence[str]) -> float:
    """Seconds from the flags to the last summary. Raises what made a run fail."""
    start = time.perf_counter()
    for _, error in runs_of(parse(list(words))):
        if error is not None:
            raise error
    return time.perf_counter() - start


def measured(asked: argparse.Namespace, model: str) -> dict[str, Any]:
    """Of each way the median of its seconds, and of its ratios to the batch's."""
    common = [
        "--task",
        asked.task,
        "--model",
        model,
        "--clients",
        asked.clients,
        "--cohort",
        "10",
        "--local.batch_size",
        "10",
    ]
    common += ["--rounds", str(asked.rounds), "--evaluate_every", str(asked.rounds), "--seed", "0..4", "--quiet"]
    goes: list[dict[str, float]] = []
    with tempfile.TemporaryDirectory() as folder:
        for _ in range(asked.goes + 1):  # the first warms up
            go = {
                way: taken([*common, *words, "--out", folder]) * (1 if way == "batch" else 3)
                for way, words in WAYS.items()
            }
            if model in by_hand.SIZES and asked.task == "mnist":
                go[HAND] = by_hand.seconds(model, 150, asked.rounds)
            goes.append(go)
    return {
        way: {
            "seconds": statistics.median(go[way] for go in goes[1:]),
            "ratio": statistics.median(go[way] / go["batch"] for go in goes[1:]),
        }
        for way in goes[0]
    }


def main(argv: Sequence[str] | None = None) -> int:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m experiments.bench.sweep", description=__doc__)
    parser.add_argument("--models", default="lr,2nn", help="which, with commas between")
    parser.add_argument("--task", default="mnist", help="a task")
    parser.add_argument("--clients", default="100", help="how many share it; 10 train a round")
    parser.add_argument("--rounds", type=int, default=20, help="rounds of each run")
    parser.add_argument("--goes", type=int, default=3, help="turns")
    parser.add_argument("--out", type=Path, help="a file for the figures, such as sweep.json")
    asked = parser.parse_args(argv)
    figures: dict[str, Any] = {
        "date": time.strftime("%Y-%m-%d"),
        "machine": provenance.machine(),
        "commit": provenance.commit(ROOT),
    }
    figures |= {"task": asked.task, "sweep": {}}
    for model in asked.models.split(","):
        figures["sweep"][model] = measured(asked, model)
        print(json.dumps({model: figures["sweep"][model]}), flush=True)
        if asked.out is not None:  # what was measured is kept, whatever comes
            asked.out.write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
