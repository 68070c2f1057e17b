"""The figures of ``experiments.bench.gpu`` as Markdown."""

from collections.abc import Mapping
from typing import Any

from experiments.bench.tables.markdown import aligned, seconds

Figures = Mapping[str, Any]


def markdown(figures: Figures) -> str:
    """Tables and findings of one gpu.json: seconds per round of S1, vmap against loop, runs with equal results.

    Parts that were not measured are left out.
    """
    rows = [*whole_run(figures), *short_runs(figures)]
    columns = {
        "S1 on a GPU": [row[0] for row in rows],
        "s a round": [row[1] for row in rows],
        "remarks": [row[2] for row in rows],
    }
    about = figures["machine"]
    have = ", ".join(f"{name} {version}" for name, version in figures["versions"].items() if version)
    where = f"{about['device']}, {about['cpu']}, {about['cores']} cores; {have}; commit {figures['commit']}"
    where += "; seeds from 0 on, nothing was tuned"
    earlier = {part: row["commit"] for part, row in figures.items() if isinstance(row, Mapping) and "commit" in row}
    older = "".join(f"; {part}: commit {commit}, an earlier day" for part, commit in earlier.items())
    engines = [*by_cohort(figures), ""] if "engines" in figures else []
    return (
        "\n".join(
            [*aligned(columns), "", *engines, *(f"- {line}" for line in findings(figures)), "", f"{where}{older}."]
        )
        + "\n"
    )


def by_cohort(figures: Figures) -> list[str]:
    """The table of vmap against loop, by model and cohort."""
    kinds = {
        key: row for key, row in figures["engines"].items() if isinstance(row, Mapping) and row.get("loop_over_vmap")
    }
    columns = {
        "model x cohort": list(kinds),
        "vmap, s a round": [seconds(row["vmap"]["seconds_round"]) for row in kinds.values()],
        "loop / vmap (loop: ten clients, scaled)": [f"{row['loop_over_vmap']:.1f}" for row in kinds.values()],
        "vmap's memory, MB": [str(row["vmap"].get("gpu_mb", "")) for row in kinds.values()],
    }
    return aligned(columns)


def whole_run(figures: Figures) -> list[tuple[str, str, str]]:
    """(name, seconds per round, remark) of the whole of S1."""
    if "whole" not in figures:
        return []
    row = figures["whole"]
    remark = (
        f"all rounds in {row['wall_seconds']:.0f} s, start-up included, images decoded before; "
        f"accuracy {row['accuracy_last_5']:.3f}"
    )
    return [(f"vmap, {row['precision']}, from start to end", seconds(row["seconds_round"]), remark)]


def short_runs(figures: Figures) -> list[tuple[str, str, str]]:
    """(name, seconds per round, no remark) of the short runs of S1."""
    shown = {
        "vmap, float32": ("precisions", "full"),
        "vmap, TF32": ("precisions", "tf32"),
        "vmap, bfloat16 autocast": ("precisions", "bf16"),
        "vmap, float32, without CUDA graphs": ("repeated", "no graphs"),
        "vmap, blocks of 13": ("workers", "one process"),
        "vmap, blocks of 13, one Ray worker": ("workers", "1 x 1.0"),
        "vmap, blocks of 13, four Ray workers on a quarter of the GPU each": ("workers", "4 x 0.25"),
    }
    rows = [
        (name, seconds(figures[part][key]["seconds_round"]), "")
        for name, (part, key) in shown.items()
        if part in figures
    ]
    rows += [(name, seconds(figures[name]["seconds_round"]), "") for name in ("loop", "pfl") if name in figures]
    return rows


def findings(figures: Figures) -> list[str]:
    """One line for each finding: equal digests, distances, ratios."""
    equal = {
        "repeated": "Same digest from run to run, and with and without CUDA graphs",
        "workers": "Same digest with one worker, four workers and none",
    }
    lines = [f"{line}: {'yes' if figures[part]['equal'] else 'no'}." for part, line in equal.items() if part in figures]
    if "against_cpu" in figures:
        far = max(figures["against_cpu"][engine] for engine in ("loop", "vmap"))
        lines.append(f"Three rounds in float64, GPU against CPU: models differ by {far:.1g} (relative).")
    if "together" in figures:
        ratios = " and ".join(
            f"{figures['together'][way]['ratio']:.1f} times as fast as one after another on {way}"
            for way in ("loop", "vmap")
        )
        lines.append(f"Fifteen runs of LeNet as one batch (--vmap_over): {ratios}.")
    for precision in ("full", "tf32"):
        if precision in figures.get("steps", {}):
            steps = figures["steps"][precision]["milliseconds"]
            forms = ", ".join(f"{name} {ms:.1f}" for name, ms in steps.items())
            lines.append(f"One step of 50 clients of S1's CNN, {precision}, ms: {forms}.")
    return lines
