"""``python -m experiments.studies.meta.omniglot``: few-shot classification by six algorithms, in a short schedule.

Each arm is a recipe, ``omniglot-maml`` and so on, shortened for one core of a CPU: fewer and smaller rounds, and a
larger outer step. A seed is that of the run, of the split of characters and of the episodes, so that the arms of a seed
train and are judged on the same ones. The figure is ``unseen_accuracy``, not transductive.

Runs lie in ``--out``; what it holds is not run again, so that the command may be interrupted. Written are omniglot.csv
(a line a run), .md and .png in ``experiments/results``. Other flags go to all runs.

Gates: MAML is at most half a point below first-order MAML, ANIL at most a point below MAML, R2-D2 and MetaOptNet at
most half a point below MAML at 5 shots; means over paired seeds.
"""

import argparse
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
from matplotlib.figure import Figure

from experiments.command_ends import ended
from experiments.config.values import seeds
from experiments.provenance import origin
from experiments.run import main as run
from experiments.studies import study_runs
from experiments.studies.paired import difference, markdown, signed, spread
from experiments.studies.study_runs import run_once, tried
from fl_sim.logs.reader import RunLog

EPISODES, EVALUATIONS = 100, 4
"""Unseen episodes of an evaluation, and evaluations of a run."""
COMMON = ["--cohort", "4", "--clients", "8100", "--holdout_clients", str(EPISODES)]
COMMON += ["--personalize_clients", str(EPISODES)]
LEARNT = ["--strategy.outer_lr", "0.003", "--strategy.anneal", "linear"]
"""The server's step, of all arms but Reptile."""
TUNED = "by short runs with 32 filters: MAML's outer_lr (.001, .003), first-order MAML's inner_lr at 20 ways (.1, .4)"


@dataclass(frozen=True)
class Condition:
    """Episodes of one kind, and what is run on them."""

    title: str
    ways: int
    shots: int
    rounds: int
    arms: Sequence[str]
    queries: int = 5
    """Of each class."""
    flags: Sequence[str] = ()

    def words(self, arm: str, seed: int) -> list[str]:
        """The flags of a run, its recipe first."""
        words = [f"omniglot-{arm}", *COMMON, *self.flags, "--task.ways", str(self.ways), "--rounds", str(self.rounds)]
        held = self.queries / (self.queries + self.shots)
        words += ["--task.shots", str(self.shots), "--task.queries", str(self.queries)]
        words += ["--partition.unseen_held_out", f"{held:.6f}"]
        words += ["--personalize_every", str(max(self.rounds // EVALUATIONS, 1))]
        words += ["--evaluate_every", str(self.rounds), "--digest_every", str(self.rounds)]
        words += ["--seed", str(seed), "--task.seed", str(seed)]
        if arm == "reptile":
            return words
        return [*words, *LEARNT, "--strategy.support_size", str(self.ways * self.shots)]


EVERY = ("maml", "fomaml", "anil", "reptile", "r2d2", "metaoptnet")
CONDITIONS = [
    Condition("5 ways, 1 shot", 5, 1, 400, EVERY),
    Condition("5 ways, 5 shots", 5, 5, 200, ("maml", "fomaml", "anil", "r2d2", "metaoptnet")),
    Condition("20 ways, 1 shot", 20, 1, 300, ("maml", "fomaml", "anil"), queries=2),
    Condition("5 ways, 1 shot, by alphabet", 5, 1, 200, ("maml", "r2d2"), flags=("--task.by", "alphabet")),
]
FULL = "the full schedule's first rounds"
FULL_ROUNDS = 24
FULL_WORDS = [
    *("omniglot-maml", "--rounds", str(FULL_ROUNDS), "--clients", "8100", "--personalize_every", "8"),
    *("--personalize_clients", "40", "--evaluate_every", str(FULL_ROUNDS), "--digest_every", str(FULL_ROUNDS)),
]
"""MAML as in its recipe: 32 episodes a round, 75 queries each."""


def main(argv: Sequence[str] | None = None) -> int:
    """The command. Returns 0; 1 where a gate fails; 2 for bad input; the exit code of an interruption."""
    parser = argparse.ArgumentParser(prog="python -m experiments.studies.meta.omniglot", description=__doc__)
    parser.add_argument("--out", default="runs/omniglot", help="folder of the runs")
    parser.add_argument("--seeds", default="0..2", help="seeds of the runs; empty: run nothing")
    parser.add_argument("--note", default="", help="a sentence for readers of the page")
    options, more = parser.parse_known_args(argv)
    out = Path(options.out)
    try:
        for seed in seeds(options.seeds) if options.seeds else []:
            for condition, arm in cells():
                if code := run_once(run, place(out, condition, arm, seed), [*condition.words(arm, seed), *more]):
                    return code
        if options.seeds and (code := run_once(run, out / "full", [*FULL_WORDS, *more])):
            return code
        print(written(out, options.note))
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 1 if any(verdict == "failed" for *_, verdict in gates(outcomes(out))) else 0


def cells() -> Iterator[tuple[Condition, str]]:
    """Every condition with each of its arms."""
    return ((condition, arm) for condition in CONDITIONS for arm in condition.arms)


def place(out: Path, condition: Condition, arm: str, seed: int) -> Path:
    """The parent folder of a run's folder."""
    return out / condition.title.replace(", ", "-").replace(" ", "-") / arm / f"seed-{seed}"


def logs(out: Path, condition: Condition, arm: str) -> list[RunLog]:
    """The runs of an arm that have ended, by seed."""
    folders = sorted(place(out, condition, arm, 0).parent.glob("seed-*"))
    return [log for log in map(tried, folders) if log is not None]


def outcomes(out: Path) -> pd.DataFrame:
    """A line a run: condition, arm, seed, final and initial accuracy, seconds, digest. Raises ValueError for none."""
    rows = []
    for condition, arm in cells():
        for log in logs(out, condition, arm):
            facts = {"condition": condition.title, "arm": arm, "seed": log.config["seed"]}
            names = ("status", "rounds", "unseen_accuracy", "personal_queries", "seconds", "digest")
            rows.append({**facts, **{name: log.summary.get(name) for name in names}})
    if not rows:
        raise ValueError(f"out = {str(out)!r}: holds no run of this study")
    table = pd.DataFrame(rows)
    table.loc[table["status"] == "failed", "unseen_accuracy"] = 0.0
    return table


def gates(table: pd.DataFrame) -> list[tuple[str, str, str, str]]:
    """(condition, what is wanted, what was found, holds or failed), of the gates whose arms have runs."""
    found = []
    for condition in CONDITIONS:
        own = table[table["condition"] == condition.title]
        wanted = [("maml", "fomaml", 0.005), ("anil", "maml", 0.01)]
        wanted += [(arm, "maml", 0.005) for arm in ("r2d2", "metaoptnet") if condition.shots == 5]
        for arm, other, least in wanted:
            if (gap := difference(own, arm, other, "unseen_accuracy")) is not None:
                verdict = "holds" if gap.mean >= -least else "failed"
                found.append((condition.title, f"{arm} - {other} at least -{least:g}", signed(gap), verdict))
    return found


def written(out: Path, note: str) -> str:
    """Write the three files; returns the page. Raises ValueError where there is no run."""
    table = outcomes(out)
    table.to_csv(study_runs.RESULTS / "omniglot.csv", index=False)
    picture(out, study_runs.RESULTS / "omniglot.png")
    how = f"""Accuracy on {EPISODES} episodes of characters that no run trains on (5 queries of each class, 2 of 20),
each query alone with the support batch (`personal_queries` = alone, not transductive); mean over seeds, in brackets the
lowest and the highest. **Reduced**: 4 episodes a round, rounds as in the table, outer step .003 -> 0, one inner step of
.4 at 20 ways too; the recipes `omniglot-*` hold the full schedule, for a GPU. Below, every arm by the episodes that it
has seen, and the first {FULL_ROUNDS} rounds of MAML's full schedule (32 episodes a round, outer step .001)."""
    lines = ["# omniglot", "", "```", "python -m experiments.studies.meta.omniglot", "```", "", how, ""]
    rows = []
    for condition, arm in cells():
        own = table[(table["condition"] == condition.title) & (table["arm"] == arm)]
        if len(own):
            shown = spread(own["unseen_accuracy"]), f"{own['seconds'].mean():.0f}", len(own)
            rows.append([condition.title, f"{1 / condition.ways:.2f}", arm, condition.rounds, *shown])
    lines += markdown(["episodes", "chance", "arm", "rounds", "unseen accuracy", "seconds", "seeds"], rows)
    lines += ["", *markdown(["episodes", "gate", "found (95 % interval)", ""], gates(table)), ""]
    every = [log for condition, arm in cells() for log in logs(out, condition, arm)]
    page = "\n".join([*lines, "![by episodes](omniglot.png)", "", f"{origin(every, TUNED)} {note}".rstrip(), ""])
    (study_runs.RESULTS / "omniglot.md").write_text(page, encoding="utf-8")
    return page


def curve(found: Sequence[RunLog]) -> pd.DataFrame:
    """Mean, lowest and highest ``unseen_accuracy`` by episodes seen."""
    frames = [log.rounds.assign(seen=log.rounds["round"] * log.config["cohort"]) for log in found]
    known = pd.concat(frames)[["seen", "unseen_accuracy"]].dropna()
    return known.groupby("seen")["unseen_accuracy"].agg(["mean", "min", "max"])


def picture(out: Path, file: Path) -> None:
    """A panel for each condition: accuracy by episodes seen, and chance."""
    figure = Figure(figsize=(11, 7.6), layout="constrained")
    for axes, condition in zip(figure.subplots(2, 2).flat, CONDITIONS, strict=False):
        for arm in condition.arms:
            if found := [log for log in logs(out, condition, arm) if "unseen_accuracy" in log.rounds]:
                line = curve(found)
                color = axes.plot(line.index, line["mean"], label=arm, marker=".")[0].get_color()
                axes.fill_between(line.index, line["min"], line["max"], color=color, alpha=0.15, linewidth=0)
        full = tried(out / "full")
        if condition is CONDITIONS[0] and full is not None and "unseen_accuracy" in full.rounds:
            line = curve([full])
            axes.plot(line.index, line["mean"], label=f"maml, {FULL}", color="black", linestyle="--", marker=".")
        axes.axhline(1 / condition.ways, color="grey", linewidth=1, linestyle=":", label="chance")
        axes.set(title=condition.title, xlabel="episodes seen", ylabel="unseen accuracy", ylim=(0, 1))
        axes.grid(alpha=0.3)
        axes.legend(fontsize="small")
    figure.savefig(file, format="png", dpi=110)


if __name__ == "__main__":
    sys.exit(ended(main))
