"""The command of a study in virtual time, its page (times, ratios, classes apart), its CSV and its curves."""

import argparse
import math
import re
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from scipy import stats

from experiments.analysis.curves import step_line
from experiments.config.values import seeds
from experiments.provenance import origin
from experiments.studies import study_runs
from experiments.studies.paired import markdown
from experiments.studies.study_runs import Command
from experiments.studies.time.target_times import (
    TimeStudy,
    chosen,
    made,
    megabytes,
    of_classes,
    outcomes,
    run_all,
)
from fl_sim.logs.reader import RunLog


def command(study: TimeStudy, run: Command, about: str | None, argv: Sequence[str] | None) -> int:
    """Make the missing runs and write the page. Returns 0; 2 for bad input; the exit code of an interruption."""
    parser = argparse.ArgumentParser(prog=f"python -m experiments.studies.time.{study.name}", description=about)
    parser.add_argument("--out", default=f"runs/{study.name}", help="folder of the runs")
    parser.add_argument("--seeds", default="0..4", help="seeds of runs and partitions")
    parser.add_argument("--note", default="", help="a sentence for readers of the page")
    parser.add_argument("--page", action="store_true", help="run nothing: write the page from what is there")
    options, more = parser.parse_known_args(argv)
    out, numbers = Path(options.out), seeds(options.seeds)
    try:
        if not options.page and (code := run_all(study, run, out, numbers, more)):
            return code
        print(written(study, out, numbers, options.note, more))
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


def written(study: TimeStudy, out: Path, numbers: Sequence[int], note: str, more: Sequence[str] = ()) -> str:
    """Write the three files; returns the page. Raises ValueError where no reported run is there."""
    table = outcomes(study, out, numbers)
    if table.empty:
        raise ValueError(f"out = {str(out)!r}: holds no reported run of this study")
    file, body, logs = study_runs.RESULTS / study.name, list[str](), list[RunLog]()
    table.to_csv(f"{file}.csv", index=False)
    for condition in study.conditions:
        own = table[table["condition"] == condition]
        body += [f"## {condition}", "", *sections(study, own), ""] if len(own) else []
    for condition, arm in study.cells():
        for candidate in arm.candidates:
            folders = sorted(study.place(out, condition, arm, candidate).glob("*"))
            logs += filter(None, map(made, folders))
    picture(study, out, numbers, Path(f"{file}.png"))
    how = ["```", " ".join([f"python -m experiments.studies.time.{study.name}", *more]), "```"]
    tuned = "the numbers of each arm, for each target, by the time to it on validation samples in one run with seed 100"
    page = [f"# {study.name}", "", *how, "", study.explanation, "", f"![curves]({study.name}.png)", "", *body]
    text = "\n".join([*page, f"{origin(logs, tuned)} {note}".rstrip(), ""])
    Path(f"{file}.md").write_text(text, encoding="utf-8")
    return text


def sections(study: TimeStudy, own: pd.DataFrame) -> list[str]:
    """The lines of a condition: a table for each target, and one of the accuracies at the end."""
    lines, first = list[str](), study.arms[0].name
    for target in study.targets:
        part = own[own["target"] == target]
        rows = []
        for arm in study.arms:
            runs = part[part["arm"] == arm.name].sort_values("seed")
            if runs.empty:
                continue
            ratio = "" if arm.name == first else times_less(part[part["arm"] == first], runs)
            numbers = re.sub(r"--[\w.]+\.(\w+)", r"\1", str(runs["numbers"].iloc[0]))
            reached = f"{int(np.isfinite(runs['virtual_time']).sum())} of {len(runs)}"
            rows.append([arm.name, numbers, over(runs["virtual_time"]), over(runs["mb"]), ratio, reached])
        columns = ["arm", "numbers", "virtual seconds", "MB", f"times less than {first} (95 %)", "reached"]
        lines += [f"To {target:.2f}:", "", *markdown(columns, rows), ""]
    last = own[own["target"] == study.targets[-1]].groupby("arm", sort=False)
    shown = [("accuracy", "accuracy"), ("apart", f"classes {', '.join(map(str, study.apart))}"), ("others", "others")]
    shown += [("slow_share", "used work of slow devices"), ("staleness", "staleness"), ("server_steps", "server steps")]
    shown = [(key, title) for key, title in shown if key in own and own[key].notna().any()]
    means = {str(name): runs[[key for key, _ in shown]].mean() for name, runs in last}
    rows = [[name, *("-" if math.isnan(x) else f"{x:.3g}" for x in values)] for name, values in means.items()]
    return [*lines, "At the end (means over seeds):", "", *markdown(["arm", *(title for _, title in shown)], rows)]


def over(values: pd.Series) -> str:
    """Mean and 95 % t-interval; a dash where not all runs reached the target: a mean would leave out the worst."""
    known = values[np.isfinite(values)]
    if len(known) < len(values):
        return "-"
    half = stats.t.ppf(0.975, len(known) - 1) * known.std() / math.sqrt(len(known)) if len(known) > 1 else math.nan
    return f"{known.mean():.4g}" if math.isnan(half) else f"{known.mean():.4g} +- {half:.2g}"


def times_less(base: pd.DataFrame, runs: pd.DataFrame) -> str:
    """How many times less virtual time ``runs`` take than ``base`` on the same seeds: geometric mean, 95 % interval."""
    both = base.set_index("seed")["virtual_time"].to_frame("base").join(runs.set_index("seed")["virtual_time"])
    ratios = both["base"] / both["virtual_time"]  # 0, infinite or NaN where one of them did not reach it
    logs = np.log(ratios[(ratios > 0) & np.isfinite(ratios)].to_numpy(float))
    if len(logs) < len(both) or not len(logs):
        return f"- ({len(logs)} of {len(both)} seeds reach it in both)"
    mean = math.exp(logs.mean())
    if len(logs) == 1:
        return f"{mean:.2f}"
    half = float(stats.t.ppf(0.975, len(logs) - 1) * logs.std(ddof=1) / math.sqrt(len(logs)))
    return f"{mean:.2f} ({mean / math.exp(half):.2f} to {mean * math.exp(half):.2f})"


def picture(study: TimeStudy, out: Path, numbers: Sequence[int], file: Path) -> None:
    """Accuracy over virtual time and over bytes, and that of the classes apart; a row a condition."""
    across = 3 if study.apart else 2
    figure = Figure(figsize=(5 * across, 3.8 * len(study.conditions)), layout="constrained")
    panels = figure.subplots(len(study.conditions), across, squeeze=False)
    for condition, row in zip(study.conditions, panels, strict=True):
        for arm in study.arms:
            candidate = chosen(study, out, condition, arm, study.targets[-1])
            place = study.place(out, condition, arm, candidate)
            logs = [log for log in (made(place / f"seed-{seed}") for seed in numbers) if log is not None]
            if logs:
                _line(row[0], arm.name, logs, "virtual_time", "accuracy", ())
                _line(row[1], arm.name, logs, "mb", "accuracy", ())
                if study.apart:
                    _line(row[2], arm.name, logs, "virtual_time", "own", study.apart)
        titles = [("virtual time (s)", "test accuracy"), ("to and from clients (MB)", "test accuracy")]
        titles += [("virtual time (s)", f"accuracy of classes {', '.join(map(str, study.apart))}")]
        for axes, (below, beside) in zip(row, titles, strict=False):
            axes.set(title=condition, xlabel=below, ylabel=beside)
            axes.grid(alpha=0.3)
            axes.legend(fontsize="small")
        for target in study.targets:
            row[0].axhline(target, color="grey", linewidth=0.6)
            row[1].axhline(target, color="grey", linewidth=0.6)
    figure.savefig(file, format="png", dpi=110)


def _line(axes: Axes, name: str, logs: Sequence[RunLog], along: str, column: str, apart: Sequence[int]) -> None:
    lines = []
    for log in logs:
        rounds = log.rounds.assign(mb=megabytes(log.rounds))
        if apart:
            rounds = rounds.assign(own=of_classes(rounds, apart, True))
        known = rounds[[along, column]].dropna()
        lines.append(pd.Series(known[column].to_numpy(float), index=pd.Index(known[along].to_numpy(float))))
    if all(len(line) for line in lines):
        step_line(axes, name, lines)
