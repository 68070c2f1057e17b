"""``python -m experiments.studies.meta.writers``: personal models for writers that no run has seen, on MNIST.

Eleven arms under two conditions: writers crossed with three labels a client, and writers alone. Of 539 writers .8
train, .1 are validation clients and .1 unseen ones, on one partition. Each arm has 12 trials, a keyed sample of its
settings, the steps and the rate of fine-tuning among them, and is chosen by the validation writers; all arms have the
same number of gradient evaluations a client. Then follow the reported seeds, and intervals by a bootstrap over unseen
writers.

Runs lie in ``--out``; what it holds is not run again, and their checkpoints and states of clients are deleted.
Written are writers.csv (a line a run), writers-clients.csv (a line an unseen client) and writers.md in
``experiments/results``. Other flags go to all runs.
"""

import argparse
import math
import re
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

from experiments.command_ends import ended
from experiments.config.values import seeds
from experiments.run import main as run
from experiments.studies.meta.writers_arms import ARMS, Arm
from experiments.studies.meta.writers_page import written
from experiments.studies.study_runs import run_once, tried
from fl_sim.states.segment_files import FOLDER

COMMON = [
    *("--task", "mnist", "--partition", "natural-labels", "--partition.unseen_held_out", "0.8", "--model", "mlp"),
    *("--cohort", "20", "--local.batch_size", "10", "--personalize_batch_size", "10", "--engine", "vmap"),
    *("--evaluate_every", "1000", "--digest_every", "1000", "--checkpoint_every", "1000"),
]
CONDITIONS = {
    "crossed with 3 labels": "--partition.labels_per_client 3 --clients 2156 --holdout_clients 216 "
    "--validation_clients 216",
    "writers alone": "--partition.labels_per_client 10 --clients 539 --holdout_clients 54 --validation_clients 54",
}
"""Title of a condition -> its flags; the clients of a writer follow one another."""
TRIAL_SEED, TRIAL_CLIENTS = 100, 108


def place(out: Path, condition: str, arm: Arm) -> Path:
    """The folder of an arm's runs."""
    return out.joinpath(*(re.sub(r"\W+", "-", part) for part in (condition, arm.name)))


def words(condition: str, arm: Arm, own: Sequence[str], more: Sequence[str]) -> list[str]:
    """The flags of a run; those of an arm replace the common ones, and ``more`` replaces all others."""
    given = [*COMMON, *CONDITIONS[condition].split(), *arm.flags.split(), *own, *more]
    return [word for pair in dict(zip(given[::2], given[1::2], strict=True)).items() for word in pair]


def score(folder: Path, column: str) -> float | None:
    """Of a trial: the accuracy of validation clients; -1 where it failed, None where it has not been made."""
    log = tried(folder)
    if log is None:
        return None
    value = log.summary.get("val_unseen_accuracy")
    if column != "accuracy" and f"val_unseen_{column}" in log.rounds:
        value = log.rounds[f"val_unseen_{column}"].iloc[-1]
    if log.summary["status"] != "completed" or value is None or math.isnan(value):
        return -1.0
    return float(value)


def scores(out: Path, condition: str, arm: Arm) -> list[float | None]:
    """Of each trial, in their order."""
    folder = place(out, condition, arm)
    return [score(folder / f"trial-{n:02}", arm.column) for n in range(len(arm.trials()))]


def made(folder: Path, given: Sequence[str]) -> int:
    """``run_once``, after which checkpoints and states of clients are deleted: some 200 MB a run of models."""
    code = run_once(run, folder, given)
    for kept in (*folder.glob("*/checkpoints"), *folder.glob(f"*/{FOLDER}")):
        shutil.rmtree(kept)
    return code


def make_runs(out: Path, condition: str, arm: Arm, reported: Sequence[int], more: Sequence[str]) -> int:
    """The missing trials of an arm, then its missing seeds at the best trial's settings. Returns an exit code."""
    folder, trials = place(out, condition, arm), arm.trials()
    few = ["--seed", str(TRIAL_SEED), "--personalize_clients", str(TRIAL_CLIENTS)]
    for number, own in enumerate(trials):
        if code := made(folder / f"trial-{number:02}", words(condition, arm, [*own, *few], more)):
            return code
    found = [-1.0 if value is None else value for value in scores(out, condition, arm)]
    best = trials[found.index(max(found))]
    for seed in reported:
        own = [*best, "--seed", str(seed), "--personalize_clients", "216"]
        if code := made(folder / f"seed-{seed}", words(condition, arm, own, more)):
            return code
    return 0


def main(argv: Sequence[str] | None = None) -> int:
    """The command. Returns 0; 2 for bad input; the exit code of an interruption."""
    parser = argparse.ArgumentParser(prog="python -m experiments.studies.meta.writers", description=__doc__)
    parser.add_argument("--out", default="runs/writers", help="folder of the runs")
    parser.add_argument("--seeds", default="0..4", help="seeds that are reported; empty: run nothing")
    parser.add_argument("--arms", default=",".join(arm.name for arm in ARMS), help="names of arms, with commas")
    parser.add_argument("--note", default="", help="a sentence for readers of the page")
    options, more = parser.parse_known_args(argv)
    out, names = Path(options.out), options.arms.split(",")
    try:
        if unknown := [name for name in names if name not in [arm.name for arm in ARMS]]:
            raise ValueError(f"arms = {unknown[0]!r}: must be of {', '.join(arm.name for arm in ARMS)}")
        for condition in CONDITIONS if options.seeds else ():
            for arm in (arm for arm in ARMS if arm.name in names):
                if code := make_runs(out, condition, arm, seeds(options.seeds), more):
                    return code
            report(out, options.note, more)
        print(report(out, options.note, more))
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


def report(out: Path, note: str, more: Sequence[str]) -> str:
    """Write the files of results from all runs that are there; returns the page."""
    cells = {
        (condition, arm): (place(out, condition, arm), scores(out, condition, arm))
        for condition in CONDITIONS
        for arm in ARMS
    }
    return written(cells, note, more)


if __name__ == "__main__":
    sys.exit(ended(main))
