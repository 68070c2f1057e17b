"""``python -m experiments.studies.fedprox_synthetic``: does keeping stragglers' work, and mu, lower the training loss?

FedProx (Li et al. 2020), figure 1: the recipe ``fedprox-synthetic`` with 90 % stragglers, in three arms: FedAvg, which
drops their work; FedProx with mu 0, which keeps it; FedProx with mu 1. Each arm runs on the same data sets
(``--data``: values of ``task.seed``) with the same cohorts (``--seed``), because one draw decides little: the drop
arm's loss ranges over a factor of three. What is compared is ``train_set_loss``, the global model's loss on all
training samples, as its mean over the last 20 rounds. The gate: the geometric mean over all draws of the ratio (keep,
mu 1) / (drop) is at most .65.

Runs lie in ``--out``; what it holds already is not run again, so that the command may be interrupted. Written
are fedprox-synthetic.csv (a line a run), .md and .png in ``experiments/results``. Other flags (``--task.alpha 0
--task.beta 0``, ``--task.iid true``, ``--rounds 50``) go to all runs, and data sets that ``--out`` holds are all shown.
"""

import argparse
import math
import sys
from collections.abc import Sequence
from pathlib import Path

import pandas as pd
from matplotlib.figure import Figure
from scipy import stats

from experiments.analysis.frames import HOW, interval
from experiments.command_ends import ended
from experiments.config.values import seeds
from experiments.provenance import origin
from experiments.run import main as run
from experiments.studies.study_runs import RESULTS, completed
from fl_sim.dotted import flatten
from fl_sim.logs.reader import RunLog

RECIPE, NAME, LAST, GATE = "fedprox-synthetic", "fedprox-synthetic", 20, 0.65
DROP, KEEP, PROX = ARMS = "drop, mu 0", "keep, mu 0", "keep, mu 1"
TUNED = "nothing here; learning rate, epochs and mu are those of the paper, which chose mu 1 of .001 .01 .1 1"


def main(argv: Sequence[str] | None = None) -> int:
    """The command. Returns 0; 1 where a run failed, or all draws are there and the gate is missed; 2 for bad input."""
    parser = argparse.ArgumentParser(prog="python -m experiments.studies.fedprox_synthetic", description=__doc__)
    parser.add_argument("--out", default="runs/fedprox-synthetic", help="folder of the runs")
    parser.add_argument("--data", default="0,1,2", help="seeds of the data, such as 0,1,2; empty: run nothing")
    parser.add_argument("--seed", default="0,1,2", help="seeds of cohorts and stragglers")
    parser.add_argument("--note", default="", help="a sentence for readers of the page")
    options, more = parser.parse_known_args(argv)
    for data in seeds(options.data) if options.data else ():
        if code := run_missing(Path(options.out), ["--task.seed", str(data), *more], seeds(options.seed)):
            return code
    try:
        table, logs = outcomes(Path(options.out))
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    page = written(table, logs, options.note)
    print(page)
    gated = ratios(table, PROX)
    whole = gated[gated["data"].str.startswith("Synthetic(1, 1)")]["ratio"]
    return int(len(whole) >= 9 and geometric_mean(whole)[0] > GATE)


def run_missing(out: Path, flags: Sequence[str], cohorts: Sequence[int]) -> int:
    """Run those arms of one data set that ``out`` does not hold; returns the first exit code other than 0.

    The drop arm trains one client in ten a round: the loop is faster. The other two arms are one batch of all cohorts,
    whose longest clients train beside each other.
    """
    numbers = ",".join(map(str, cohorts))
    calls = [
        (f"drop seed {seed}", ["--strategy", "fedavg", "--engine", "loop", "--seed", str(seed)]) for seed in cohorts
    ]
    calls += [(f"keep seeds {numbers}", ["--vmap_over", f"strategy.mu=0,1;seed={numbers}"])]
    for name, own in calls:
        place = out / "_".join([name, *flags]).replace(" ", "_").replace("/", "_")
        wanted = 1 if name.startswith("drop") else 2 * len(cohorts)
        if len(completed(place)) < wanted and (code := run([RECIPE, *own, *flags, "--out", str(place), "--quiet"])):
            return code
    return 0


def outcomes(out: Path) -> tuple[pd.DataFrame, list[RunLog]]:
    """(a line a completed run: data, data_seed, seed, arm, means of the last rounds; the runs' logs).

    Raises ValueError where there is none, and where they differ in other settings, such as rounds.
    """
    logs = [log for place in sorted(out.glob("*/")) for log in completed(place)]
    if not logs:
        raise ValueError(f"out = {str(out)!r}: holds no completed run")
    own = ("seed", "out", "data_dir", "task.", "strategy.", *HOW)
    settings = [{k: str(v) for k, v in flatten(log.config).items() if not k.startswith(own)} for log in logs]
    if differ := sorted({k for each in settings for k in {*each, *settings[0]} if each.get(k) != settings[0].get(k)}):
        raise ValueError(f"out = {str(out)!r}: holds runs that differ in {', '.join(differ)}; give each kind its --out")
    rows = []
    for log in logs:
        task, last = log.config["task"], log.rounds[log.rounds["round"] > 0].tail(LAST)
        kind = "IID" if task.get("iid") else f"Synthetic({task['alpha']:g}, {task['beta']:g})"
        rows.append(
            {
                "data": f"{kind}, data seed {task['seed']}",
                "seed": log.config["seed"],
                "arm": arm_of(log),
                **{k: last[k].mean() for k in ("train_set_loss", "train_set_accuracy", "accuracy", "train_loss")},
                "rounds": int(log.rounds["round"].iloc[-1]),
                "seconds": log.summary["seconds"],
                "digest": log.summary["digest"],
            }
        )
    return pd.DataFrame(rows).drop_duplicates(["data", "seed", "arm"], keep="last").reset_index(drop=True), logs


def arm_of(log: RunLog) -> str:
    """The arm of a run."""
    strategy = log.config["strategy"]
    return DROP if strategy["name"] == "fedavg" else f"keep, mu {strategy['mu']:g}"


def ratios(table: pd.DataFrame, arm: str) -> pd.DataFrame:
    """Each draw that has both arms: data, seed, and ``ratio``, the training loss of ``arm`` over that of DROP."""
    loss = table.pivot(index=["data", "seed"], columns="arm", values="train_set_loss").reindex(columns=list(ARMS))
    return (loss[arm] / loss[DROP]).dropna().rename("ratio").reset_index()


def geometric_mean(values: pd.Series) -> tuple[float, float, float]:
    """(geometric mean, low, high): a 95 % t-interval of the mean logarithm; NaN for one value."""
    logs = values.map(math.log)
    n, mean = len(logs), float(logs.mean())
    half = float(stats.t.ppf(0.975, n - 1) * logs.std() / n**0.5) if n > 1 else math.nan
    return math.exp(mean), math.exp(mean - half), math.exp(mean + half)


def written(table: pd.DataFrame, logs: Sequence[RunLog], note: str) -> str:
    """Write the three files; returns the page."""
    table.to_csv(RESULTS / f"{NAME}.csv", index=False)
    picture(logs, RESULTS / f"{NAME}.png")
    page = "\n".join([*head(), *by_draw(table), "", *summary(table), "", f"{origin(logs, TUNED)} {note}".rstrip(), ""])
    (RESULTS / f"{NAME}.md").write_text(page, encoding="utf-8")
    return page


def head() -> list[str]:
    """Title and how it is run."""
    what = "Loss on all training samples, mean of the last 20 rounds, and its ratio to the arm that drops stragglers."
    return [f"# {NAME}", "", "```", "python -m experiments.studies.fedprox_synthetic", "```", "", what, ""]


def by_draw(table: pd.DataFrame) -> list[str]:
    """A Markdown table with a row for each draw."""
    columns = ["data", "cohort seed", *ARMS, *(f"({arm}) / drop" for arm in (KEEP, PROX))]
    lines = ["| " + " | ".join(columns) + " |", "|---" * len(columns) + "|"]
    loss = table.pivot(index=["data", "seed"], columns="arm", values="train_set_loss").reindex(columns=list(ARMS))
    for row in loss.reset_index().to_dict("records"):
        numbers = [*(row[arm] for arm in ARMS), row[KEEP] / row[DROP], row[PROX] / row[DROP]]
        shown = ["" if math.isnan(x) else f"{x:.3f}" for x in numbers]
        lines.append("| " + " | ".join([row["data"], str(row["seed"]), *shown]) + " |")
    return lines


def summary(table: pd.DataFrame) -> list[str]:
    """Means over seeds with intervals, and the geometric means of the ratios."""
    lines = [
        "| data | arm | train-set loss | train-set accuracy | test accuracy | seeds |",
        "|---|---|---|---|---|---|",
    ]
    columns = ("train_set_loss", "train_set_accuracy", "accuracy")
    found = [interval(table, ["data", "arm"], column) for column in columns]
    for rows in zip(*(frame.itertuples(index=False) for frame in found), strict=True):
        shown = [f"{r.mean:.3f}" + (f" ({r.low:.3f} to {r.high:.3f})" if r.n > 1 else "") for r in rows]
        lines.append("| " + " | ".join([rows[0].data, rows[0].arm, *shown, str(rows[0].n)]) + " |")
    lines += ["", "In brackets: 95 % t-intervals over cohort seeds.", ""]
    for arm in (KEEP, PROX):
        every = ratios(table, arm)
        for kind, own in every.groupby(every["data"].str.rpartition(", data seed ")[0]):
            mean, low, high = geometric_mean(own["ratio"])
            sure = f" ({low:.3f} to {high:.3f})" if len(own) > 1 else ""
            what = f"{kind}: geometric mean of ({arm}) / ({DROP}) over {len(own)} draws: {mean:.3f}{sure}"
            gate = f"; wanted: at most {GATE}" if arm == PROX and str(kind) == "Synthetic(1, 1)" else ""
            lines.append(f"- {what}{gate}")
    return lines


def picture(logs: Sequence[RunLog], file: Path) -> None:
    """Training loss by round, a panel for each data set, a line for each arm: mean over seeds, lowest to highest."""
    rows = []
    for log in logs:
        task = log.config["task"]
        kind = "IID" if task.get("iid") else f"Synthetic({task['alpha']:g}, {task['beta']:g})"
        rows.append(
            log.rounds[["round", "train_set_loss"]].assign(data=f"{kind}, seed {task['seed']}", arm=arm_of(log))
        )
    every = pd.concat(rows)
    panels = sorted(every["data"].unique())
    figure = Figure(figsize=(4 * len(panels), 3.6), layout="constrained")
    for axes, data in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels, strict=True):
        for arm in ARMS:
            own = every[(every["data"] == data) & (every["arm"] == arm)]
            line = own.groupby("round")["train_set_loss"].agg(["mean", "min", "max"])
            if len(line):
                color = axes.plot(line.index, line["mean"], label=arm)[0].get_color()
                axes.fill_between(line.index, line["min"], line["max"], color=color, alpha=0.15, linewidth=0)
        axes.set(title=data, xlabel="round", ylabel="loss on all training samples", yscale="log")
        axes.grid(alpha=0.3)
        axes.legend(fontsize="small")
    figure.savefig(file, format="png", dpi=120)


if __name__ == "__main__":
    sys.exit(ended(main))
