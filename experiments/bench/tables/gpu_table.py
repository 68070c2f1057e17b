"""The figures of ``experiments.bench.gpu`` as Markdown. No paper."""

from collections.abc import Mapping
from typing import Any

from experiments.bench.tables.markdown import aligned, seconds

Figures = Mapping[str, Any]


def markdown(figures: Figures) -> str:
    """What was measured of S1 on a GPU: seconds a round by kind of run, and what was equal. Parts that are missing are left out."""
    rows = [*of_whole(figures), *of_rounds(figures)]
    columns = {
        "S1 on a GPU": [row[0] for row in rows],
        "s a round": [row[1] for row in rows],
        "": [row[2] for row in rows],
    }
    about = figures["machine"]
    have = ", ".join(f"{name} {version}" for name, version in figures["versions"].items() if version)
    where = f"{about['device']}, {about['cpu']}, {about['cores']} cores; {have}; commit {figures['commit']}"
    earlier = {part: row["commit"] for part, row in figures.items() if isinstance(row, Mapping) and "commit" in row}
    dated = "".join(f"; {part}: commit {commit}, an earlier day" for part, commit in earlier.items())
    engines = [*by_cohort(figures), ""] if "engines" in figures else []
    return (
        "\n".join([*aligned(columns), "", *engines, *(f"- {line}" for line in truths(figures)), "", f"{where}{dated}."])
        + "\n"
    )


def by_cohort(figures: Figures) -> list[str]:
    """vmap against loop, by model and cohort."""
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


def of_whole(figures: Figures) -> list[tuple[str, str, str]]:
    """The 1500 rounds."""
    if "whole" not in figures:
        return []
    row = figures["whole"]
    told = f"all rounds in {row['wall_seconds']:.0f} s, start-up included, pictures decoded before; accuracy {row['accuracy_last_5']:.3f}"
    return [(f"vmap, {row['precision']}, from start to end", seconds(row["seconds_round"]), told)]


def of_rounds(figures: Figures) -> list[tuple[str, str, str]]:
    """Short runs."""
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


def truths(figures: Figures) -> list[str]:
    """What was equal."""
    told = {
        "repeated": "Same digest from run to run, and with and without CUDA graphs",
        "workers": "Same digest with one worker, four workers and none",
    }
    lines = [f"{line}: {'yes' if figures[part]['equal'] else 'no'}." for part, line in told.items() if part in figures]
    if "against_cpu" in figures:
        far = max(figures["against_cpu"][engine] for engine in ("loop", "vmap"))
        lines.append(f"Three rounds in float64, GPU against CPU: models differ by {far:.1g} (relative).")
    if "together" in figures:
        ratios = " and ".join(
            f"{figures['together'][way]['ratio']:.1f} times over one after another on {way}" for way in ("loop", "vmap")
        )
        lines.append(f"Fifteen runs of LeNet as one batch (--vmap_over): {ratios}.")
    for precision in ("full", "tf32"):
        if precision in figures.get("steps", {}):
            steps = figures["steps"][precision]["milliseconds"]
            forms = ", ".join(f"{name} {ms:.1f}" for name, ms in steps.items())
            lines.append(f"One step of 50 clients of S1's CNN, {precision}, ms: {forms}.")
    return lines
