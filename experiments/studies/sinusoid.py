"""``python -m experiments.studies.sinusoid``: how well models adapt to a new sine wave after ten steps.

Reptile (Nichol et al. 2018, section 2), federated Reptile, first-order and second-order MAML (Finn et al. 2017) and
joint training, each a recipe: ``sinusoid-reptile``, ``sinusoid-fedreptile``, ``sinusoid-fomaml``, ``sinusoid-maml``,
``sinusoid-joint``. The figure is ``unseen_loss`` of the summary: the mean squared error on 1000 waves that no run
trains on, after 10 steps of SGD on 10 of their 50 points. These waves are the same in all runs; a seed is that of the
initial model and of all draws.

Runs lie in ``--out``; what it holds already is not run again, so that the command may be interrupted. Then a round of
``sinusoid-reptile`` is timed beside a plain loop of the same steps, in turn (``experiments.bench.sinusoid``). Written
are sinusoid.csv (a line a run) and sinusoid.md in ``experiments/results``.

Gates (``gates``): each recipe's mean over seeds is within 20 % of the project's own (``PINNED``), that of second-order
MAML at most 1.05 times FOMAML's, and that of joint training at least 3.5.
"""

import argparse
import math
import sys
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from experiments.analysis.frames import read
from experiments.bench.sinusoid.__main__ import in_turn, table
from experiments.command_ends import ended
from experiments.config.values import seeds
from experiments.provenance import origin
from experiments.run import main as run
from experiments.studies.paired import markdown
from fl_sim.logs.reader import RunLog

RESULTS = Path(__file__).parents[1] / "results"
"""Folder of published results."""
RECIPES = {
    "sinusoid-reptile": ".109 to .126",
    "sinusoid-fedreptile": ".07 to .08",
    "sinusoid-fomaml": ".06 to .07",
    "sinusoid-maml": "-",
    "sinusoid-joint": "4.4 to 4.8",
}
"""Name -> what plain loops of the recipe's settings give, as the recipe says; .006 of .12 is one standard error."""
PINNED = {"sinusoid-reptile": 0.125, "sinusoid-fedreptile": 0.072, "sinusoid-fomaml": 0.070, "sinusoid-joint": 4.63}
"""Name -> the mean of this project's runs at commits 67eb029 and b746245, one seed each."""
TUNED = "nothing here; the outer steps are those that the recipes name"


def main(argv: Sequence[str] | None = None) -> int:
    """The command. Returns 0; 1 where a gate fails; the code of a run that failed; 2 for bad input."""
    parser = argparse.ArgumentParser(prog="python -m experiments.studies.sinusoid", description=__doc__)
    parser.add_argument("--out", default="runs/sinusoid", help="folder of the runs")
    parser.add_argument("--recipes", default=",".join(RECIPES), help="those to run; empty: none")
    parser.add_argument("--seed", default="0..4", help="seeds of the runs, such as 0,1,2 (default: 0..4)")
    parser.add_argument("--rounds", type=int, default=300, help="rounds of a turn that are timed (default: 300)")
    parser.add_argument("--turns", type=int, default=3, help="how often each is timed, in turn (default: 3)")
    parser.add_argument("--note", default="", help="a sentence for readers of the page")
    options, more = parser.parse_known_args(argv)
    names = options.recipes.split(",") if options.recipes else []
    if unknown := [name for name in names if name not in RECIPES]:
        print(f"error: recipes = {unknown[0]!r}: must be of {', '.join(RECIPES)}", file=sys.stderr)
        return 2
    out = Path(options.out)
    for seed in seeds(options.seed):
        for name in names:
            done = any(recipe_of(log) == name and log.config["seed"] == seed for log in completed(out))
            words = [name, "--seed", str(seed), "--out", str(out), "--quiet", *more]
            if not done and (code := run(words)):
                return code
    logs = completed(out)
    if not logs:
        print(f"error: out = {options.out!r}: holds no completed run", file=sys.stderr)
        return 2
    print(written(logs, table(in_turn(options.rounds, options.turns)), options.note))
    return 1 if any(verdict == "failed" for _, _, verdict in gates(outcomes(logs))) else 0


def completed(out: Path) -> list[RunLog]:
    """The completed runs of these recipes in a folder, which may not exist."""
    folders = [file.parent for file in sorted(out.glob("*/summary.json"))]
    logs = read(*folders) if folders else []
    return [log for log in logs if log.summary.get("status") == "completed" and recipe_of(log) in RECIPES]


def recipe_of(log: RunLog) -> str:
    """The recipe of a run, by what tells them apart."""
    if log.config["task"]["name"] != "sinusoid":
        return ""
    name = log.config["strategy"]["name"]
    order = log.config["strategy"].get("order")
    known = {
        "maml": "maml" if order == 2 else "fomaml",
        "fedavg": "joint",
        "reptile": "fedreptile" if log.config["cohort"] > 1 else "reptile",
    }
    return f"sinusoid-{known.get(name, name)}"


def outcomes(logs: Sequence[RunLog]) -> pd.DataFrame:
    """A line a run, in the order of ``RECIPES``: its figure, the loss before fine-tuning, rounds, seconds, digest."""
    rows = []
    for log in sorted(logs, key=lambda log: (list(RECIPES).index(recipe_of(log)), log.config["seed"])):
        before = log.rounds["unseen_loss_before"].iloc[-1]
        row = {"recipe": recipe_of(log), "seed": log.config["seed"], "unseen_loss": log.summary["unseen_loss"]}
        rows.append({**row, "before": before, **{k: log.summary[k] for k in ("rounds", "seconds", "digest")}})
    return pd.DataFrame(rows)


def gates(frame: pd.DataFrame) -> list[tuple[str, str, str]]:
    """(what is wanted, what was found, holds or failed) of each gate whose recipes have runs; means over seeds."""
    mean, found = frame.groupby("recipe")["unseen_loss"].mean().to_dict(), list[tuple[str, str, str]]()

    def gate(wanted: str, value: float, low: float, high: float) -> None:
        found.append((wanted, f"{value:.3f}", "holds" if low <= value <= high else "failed"))

    for name, pinned in PINNED.items():
        if name in mean:
            gate(f"{name} within 20 % of {pinned:g}", mean[name], 0.8 * pinned, 1.2 * pinned)
    if {"sinusoid-maml", "sinusoid-fomaml"} <= mean.keys():
        ratio = mean["sinusoid-maml"] / mean["sinusoid-fomaml"]
        gate("sinusoid-maml / sinusoid-fomaml at most 1.05", ratio, 0, 1.05)
    if "sinusoid-joint" in mean:
        gate("sinusoid-joint at least 3.5", mean["sinusoid-joint"], 3.5, math.inf)
    return found


def written(logs: Sequence[RunLog], timed: Sequence[str], note: str) -> str:
    """Write the two files; returns the page."""
    frame = outcomes(logs)
    frame.to_csv(RESULTS / "sinusoid.csv", index=False)
    what = "Mean squared error on 1000 waves that no run trains on, before and after 10 steps on 10 points each."
    lines = ["# sinusoid", "", "```", "python -m experiments.studies.sinusoid", "```", "", what, ""]
    lines += ["| recipe | seed | before | after (`unseen_loss`) | plain loops | rounds | seconds |", "|---" * 7 + "|"]
    for row in frame.itertuples():
        figures = f"{row.before:.3f} | {row.unseen_loss:.4f} | {RECIPES[str(row.recipe)]}"
        lines.append(f"| {row.recipe} | {row.seed} | {figures} | {row.rounds} | {row.seconds:.0f} |")
    lines += ["", *markdown(["gate (mean over seeds)", "found", ""], gates(frame))]
    beside = "One round beside a plain loop of the same steps, in turn, on the machine named below (medians):"
    lines += ["", "Seconds are wall time, start and evaluation included.", "", beside, "", *timed, ""]
    page = "\n".join([*lines, f"{origin(logs, TUNED)} {note}".rstrip(), ""])
    (RESULTS / "sinusoid.md").write_text(page, encoding="utf-8")
    return page


if __name__ == "__main__":
    sys.exit(ended(main))
