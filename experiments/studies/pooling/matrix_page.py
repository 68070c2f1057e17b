"""The command of a study whose result is a matrix, arms by conditions: its page, its CSV and its picture."""

import sys
from collections.abc import Sequence
from pathlib import Path

import pandas as pd
from matplotlib.figure import Figure

from experiments.config.values import seeds
from experiments.provenance import origin
from experiments.studies import study_runs
from experiments.studies.arms import Study, every_log, outcomes
from experiments.studies.arms_page import asked
from experiments.studies.paired import markdown, spread
from experiments.studies.study_runs import Command


def command(study: Study, run: Command, about: str | None, argv: Sequence[str] | None) -> int:
    """Make the missing runs and write the page. Returns 0; 2 for bad input; the exit code of an interruption.

    All cells of a group of arms are made for a seed before the next seed; the page is written anew after each. The
    study has one learning rate, for which no trial is made.
    """
    options, more = asked(study, about, argv, default="0..2")
    out = Path(options.out)
    try:
        for group in dict.fromkeys(arm.group for arm in study.arms):
            for seed in seeds(options.seeds) if options.seeds else ():
                for own, condition, arms in study.cells():
                    for arm in arms if own == group else ():
                        if code := study.run_seed(run, out, condition, arm, seed, more):
                            return code
                written(study, out, options.note, more)
        print(written(study, out, options.note, more))
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


def written(study: Study, out: Path, note: str, more: Sequence[str] = ()) -> str:
    """Write the three files; returns the page. Raises ValueError where there is no run."""
    logs, (table, _) = every_log(study, out), outcomes(study, out)
    file = study_runs.RESULTS / study.name
    table.to_csv(f"{file}.csv", index=False)
    picture(study, table, Path(f"{file}.png"))
    how = ["```", " ".join([f"python -m {study.module}", *more]), "```"]
    body = ["# " + study.name, "", *how, "", study.explanation, ""]
    for group, own in table.groupby("group", sort=False):
        body += [f"## {group}", "", *matrix(study, own), ""]
    page = "\n".join([*body, f"{origin(logs, study.tuned)} {note}".rstrip(), ""])
    Path(f"{file}.md").write_text(page, encoding="utf-8")
    return page


def matrix(study: Study, own: pd.DataFrame) -> list[str]:
    """The lines of a group's table: a row an arm, a column a condition."""
    rows = []
    for arm in dict.fromkeys(arm.name for arm in study.arms if arm.name in set(own["arm"])):
        cells = [
            own[(own["arm"] == arm) & (own["condition"] == condition)]["compared"] for condition in study.conditions
        ]
        rows.append([arm, *(spread(cell).replace("0.", ".") for cell in cells)])
    counts = own.groupby(["arm", "condition"])["seed"].nunique()
    failed = int((own["status"] == "failed").sum())
    seen = f"{counts.min()} to {counts.max()}" if counts.min() != counts.max() else str(counts.max())
    return [*markdown(["", *study.conditions], rows), "", f"Seeds in a cell: {seen}; runs that failed: {failed}."]


def picture(study: Study, table: pd.DataFrame, file: Path) -> None:
    """The same numbers, means over seeds, as coloured tables: a panel a group."""
    groups = list(dict.fromkeys(table["group"]))
    figure = Figure(figsize=(7 * len(groups), 4.2), layout="constrained")
    for axes, group in zip(figure.subplots(1, len(groups), squeeze=False).flat, groups, strict=True):
        means = table[table["group"] == group].pivot_table("compared", "arm", "condition")
        arms = [name for name in dict.fromkeys(arm.name for arm in study.arms) if name in means.index]
        means = means.reindex(index=arms, columns=[c for c in study.conditions if c in means.columns])
        axes.imshow(means.to_numpy(float), aspect="auto", cmap="viridis", vmin=study.chance)
        axes.set_xticks(range(len(means.columns)), means.columns, rotation=30, ha="right")
        axes.set_yticks(range(len(means)), means.index)
        top = float(means.max().max())
        for row, column in ((r, c) for r in range(len(means)) for c in range(len(means.columns))):
            value = float(means.iloc[row, column])
            color = "black" if value > (top + study.chance) / 2 else "white"
            axes.text(column, row, f"{value:.2f}".removeprefix("0"), ha="center", va="center", color=color)
        axes.set_title(group)
    figure.savefig(file, format="png", dpi=110)
