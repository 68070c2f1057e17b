"""``python -m experiments.studies.pooling.rare_label``: whom agreement punishes: liars, and the honest that are alone.

Digits in five clients. One of them has all nines, and nothing else; the others share the other digits evenly. Each
pool runs without attack, and with one client turning the sign of its updates (five times as long), which may be the
one with the nines. Printed, and written into ``experiments/results/rare_label.md``: the test
accuracy, and the recall of the nines.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from experiments.command_ends import ended
from experiments.config.values import seeds
from experiments.provenance import origin
from experiments.run import run
from experiments.studies import study_runs
from fl_sim import Partition, Task, rng
from fl_sim.logs.reader import RunLog
from fl_sim.registry import offer

RARE = 9
ARMS: dict[str, dict[str, Any]] = {
    "mean": {"strategy": "fedavg"},
    "median": {"strategy": "pooled", "strategy.reduction": "median"},
    "collaborative": {"strategy": "collaborative"},
}
ATTACKS: dict[str, dict[str, Any]] = {"none": {}, "sign-flip, one client": {"attack": "sign-flip", "attack.share": 0.2}}
COMMON: dict[str, Any] = {
    "task": "digits",
    "model": "mlp",
    "partition": f"{__name__}:one_has_a_label",
    "clients": 5,
    "local.batch_size": 16,
    "local.lr": 0.3,
    "set_metrics": "class_accuracy",
    "engine": "vmap",
}


@offer("partition")
def one_has_a_label(task: Task, clients: int, seed: int) -> Partition:
    """All samples of the last label to the last client, and the others evenly to the rest."""
    label = task.train["y"].numpy()
    shuffled = rng.permutation(rng.key(seed, "partition-rare-label"), len(label))
    rest = np.array_split(shuffled[label[shuffled] != RARE], clients - 1)
    return Partition.of([np.sort(part) for part in (*rest, shuffled[label[shuffled] == RARE])])


def table(found: dict[tuple[str, str], list[RunLog]]) -> list[str]:
    """A line an attack and a pool: mean and range over seeds of the accuracy and of the recall."""
    lines = ["| attack | pool | accuracy | recall of the nines | seeds |", "|---|---|---|---|---|"]
    for (attack, arm), logs in found.items():
        last = [log.rounds.iloc[-1] for log in logs]
        values = [[row["accuracy"] for row in last], [row["class_accuracy"][RARE] for row in last]]
        shown = [f"{np.mean(v):.3f} ({min(v):.3f}-{max(v):.3f})" for v in values]
        lines.append(f"| {attack} | {arm} | {shown[0]} | {shown[1]} | {len(logs)} |")
    return lines


def main(argv: Sequence[str] | None = None) -> int:
    """The command. Returns 0."""
    parser = argparse.ArgumentParser(prog="python -m experiments.studies.pooling.rare_label", description=__doc__)
    parser.add_argument("--out", default="runs/rare_label", help="folder of the runs")
    parser.add_argument("--seeds", default="0..2", help="seeds of runs and partitions")
    parser.add_argument("--rounds", type=int, default=40, help="rounds of each run")
    options = parser.parse_args(argv)
    found: dict[tuple[str, str], list[RunLog]] = {}
    for attack, flags in ATTACKS.items():
        for arm, own in ARMS.items():
            for seed in seeds(options.seeds):
                of_run: dict[str, Any] = {
                    "seed": seed,
                    "partition.seed": seed,
                    "out": str(Path(options.out, attack, arm)),
                }
                rounds = {"rounds": options.rounds, "evaluate_every": options.rounds}
                found.setdefault((attack, arm), []).append(run(**{**COMMON, **flags, **own, **rounds, **of_run}).log)
    logs = [log for several in found.values() for log in several]
    about = (__doc__ or "").split("\n\n", 1)[1].strip()
    how = f"python -m experiments.studies.pooling.rare_label --seeds {options.seeds} --rounds {options.rounds}"
    page = ["# rare_label", "", "```", how, "```", "", about, "", *table(found), "", origin(logs, "nothing"), ""]
    (study_runs.RESULTS / "rare_label.md").write_text("\n".join(page), encoding="utf-8")
    print("\n".join(table(found)))
    return 0


if __name__ == "__main__":
    sys.exit(ended(main))
