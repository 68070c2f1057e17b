"""The command of a study of arms, its page (tables of arms and of their differences), its CSV and its curves."""

import argparse
import math
import sys
from collections.abc import Sequence
from pathlib import Path

import pandas as pd
from matplotlib.figure import Figure

from experiments.analysis.curves import LABELS
from experiments.config.values import seeds
from experiments.provenance import origin
from experiments.studies import study_runs
from experiments.studies.arms import Arm, Study, every_log, outcomes
from experiments.studies.paired import difference, lower_bound, markdown, signed, spread
from experiments.studies.study_runs import Command


def command(study: Study, run: Command, about: str | None, argv: Sequence[str] | None) -> int:
    """Make the missing runs and write the page. Returns 0; 2 for bad input; the exit code of an interruption.

    The page is written anew whenever all arms of a group have made a seed, from all runs that are there.
    """
    options, more = asked(study, about, argv)
    out = Path(options.out)
    try:
        for _, condition, arms in study.cells() if options.seeds else ():
            for arm in arms:
                if code := study.run_trials(run, out, condition, arm, more):
                    return code
            for seed in seeds(options.seeds):
                for arm in arms:
                    if code := study.run_seed(run, out, condition, arm, seed, more):
                        return code
                written(study, out, options.note, more)
        print(written(study, out, options.note, more))
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


def asked(
    study: Study, about: str | None, argv: Sequence[str] | None, default: str = "0..4"
) -> tuple[argparse.Namespace, list[str]]:
    """(``out``, ``seeds`` and ``note`` of the command line, the flags that go to all runs); ``default``: the seeds."""
    parser = argparse.ArgumentParser(prog=f"python -m {study.module}", description=about)
    parser.add_argument("--out", default=f"runs/{study.name}", help="folder of the runs")
    parser.add_argument("--seeds", default=default, help="seeds of runs and partitions; empty: run nothing")
    parser.add_argument("--note", default="", help="a sentence for readers of the page")
    return parser.parse_known_args(argv)


def written(study: Study, out: Path, note: str, more: Sequence[str] = ()) -> str:
    """Write the three files; returns the page. Raises ValueError where there is no run."""
    logs, (table, tuned) = every_log(study, out), outcomes(study, out)
    file = study_runs.RESULTS / study.name
    body = []
    if len(table):
        table.to_csv(f"{file}.csv", index=False)
        picture(study, out, Path(f"{file}.png"))
        for group, condition, arms in study.cells():
            own = table[(table["group"] == group) & (table["condition"] == condition)]
            rates = {arm.name: tuned.get((condition, group, arm.name), {}) for arm in arms}
            title = ", ".join(filter(None, (condition, group)))
            body += [f"## {title}", "", *section(study, own, arms, rates), ""] if len(own) else []
    how = ["```", " ".join([f"python -m {study.module}", *more]), "```"]
    head = [f"# {study.name}", "", *how, "", study.explanation, ""]
    page = "\n".join([*head, *body, f"{origin(logs, study.tuned)} {note}".rstrip(), ""])
    Path(f"{file}.md").write_text(page, encoding="utf-8")
    return page


def section(study: Study, own: pd.DataFrame, arms: Sequence[Arm], tuned: dict[str, dict[float, float]]) -> list[str]:
    """The lines of a group under a condition: its arms, their differences, their order."""
    names = [arm.name for arm in arms if arm.name in set(own["arm"])]
    rows = []
    sums = {"mb": "MB"} | ({"server_mb": "MB at the server"} if (own["server_mb"] != own["mb"]).any() else {})
    for name in names:
        runs, failed = own[own["arm"] == name], int((own["status"][own["arm"] == name] == "failed").sum())
        tries = ", ".join(f"{rate:g}: {score:.3f}" for rate, score in tuned[name].items())
        shown = [spread(runs[column], 2 if "loss" in column else 3) for column in study.columns]
        count = f"{len(runs)}, {failed} failed" if failed else str(len(runs))
        rows.append([name, f"{runs['lr'].iloc[0]:g}", tries, *shown, *(f"{runs[k].mean():.0f}" for k in sums), count])
    means = own.groupby("arm")["compared"].mean().sort_values(ascending=False)
    return [
        *markdown(
            ["arm", "lr", "trials by lr", *study.columns.values(), *("MB", "MB at the server")[: len(sums)], "seeds"],
            rows,
        ),
        "",
        *markdown(["difference", "mean (95 % interval)", "higher in", ""], gaps(study, own, names)),
        "",
        *verdicts(study, own),
        "By mean: " + " > ".join(f"{name} {mean:.3f}" for name, mean in means.items()) + ".",
    ]


def gaps(study: Study, own: pd.DataFrame, names: Sequence[str]) -> list[list[str]]:
    """A line for each arm and baseline: their difference seed by seed, and whether its interval excludes 0."""
    lines = []
    for column, title in [("compared", ""), *((name, f", {study.columns[name]}") for name in study.also)]:
        for name in names:
            before = study.baselines[: study.baselines.index(name)] if name in study.baselines else study.baselines
            for other in before:
                if gap := difference(own, name, other, column):
                    wins = f"{gap.wins} of {gap.seeds}"
                    lines.append([f"{name} - {other}{title}", signed(gap), wins, gap.sign])
    return lines


def verdicts(study: Study, own: pd.DataFrame) -> list[str]:
    """A table of the arms that may have so much less than the first baseline; none where no arm has a margin."""
    lines = []
    for name, margin in study.margins.items():
        if (low := lower_bound(own, name, study.baselines[0], "compared")) is not None:
            verdict = "holds" if low >= -margin else "failed"
            lines.append([f"{name} - {study.baselines[0]} at least -{margin:g}", f"{low:+.3f}", verdict])
    return [*markdown(["wanted", "lower bound (95 %, one-sided)", ""], lines), ""] if lines else []


AXES = {"round": "round", "steps": "local steps of a client, on average", "mb_up": "MB that clients have sent"}
"""Titles of the axis over which curves are drawn."""


def over(rounds: pd.DataFrame, axis: str) -> pd.Series:
    """The place of each round on this axis."""
    if axis == "mb_up":
        return rounds["bytes_up"].fillna(0).cumsum() / 1e6
    return rounds["round"] if axis == "round" else (rounds["steps"] / rounds["completed"]).fillna(0).cumsum().round()


def picture(study: Study, out: Path, file: Path) -> None:
    """The compared column by round, a panel for each group and condition: mean over seeds, lowest to highest."""
    panels = []
    for group, condition, arms in study.cells():
        lines = {}
        for arm in arms:
            value = arm.column or study.value
            found = [log.rounds for log in study.logs(out, condition, arm) if value in log.rounds]
            logs = [rounds.assign(x=over(rounds, study.axis)) for rounds in found]
            if logs:
                known = pd.concat(logs)[["x", value]].dropna()
                lines[arm.name] = known.groupby("x")[value].agg(["mean", "min", "max"])
        panels += [(", ".join(filter(None, (condition, group))), lines)] if lines else []
    across = min(len(panels), len(study.conditions))
    down = math.ceil(len(panels) / across)
    figure = Figure(figsize=(5.5 * across, 3.8 * down), layout="constrained")
    for axes, (title, lines) in zip(figure.subplots(down, across, squeeze=False).flat, panels, strict=False):
        for name, line in lines.items():
            color = axes.plot(line.index, line["mean"], label=name, marker=".")[0].get_color()
            axes.fill_between(line.index, line["min"], line["max"], color=color, alpha=0.15, linewidth=0)
        axes.set(title=title, xlabel=AXES[study.axis], ylabel=LABELS.get(study.value, study.columns[study.value]))
        axes.grid(alpha=0.3)
        axes.legend(fontsize="small")
    figure.savefig(file, format="png", dpi=110)
