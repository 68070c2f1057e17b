"""The picture of an adaptation: a metric by steps, one line for each number of shots."""

from pathlib import Path

import pandas as pd


def draw(table: pd.DataFrame, metric: str, path: Path, title: str) -> None:
    """Save the picture of a table of adapt.csv, with standard errors over episodes."""
    import matplotlib.pyplot as plt  # imported here, because it loads slowly

    figure, axes = plt.subplots(figsize=(7, 4.5))
    for shots, rows in table.groupby("shots"):
        axes.errorbar(
            rows["steps"], rows[metric], rows[f"{metric}_se"].fillna(0), marker="o", ms=3, capsize=2, label=str(shots)
        )
    axes.set(xlabel="steps of adaptation", ylabel=f"{metric} on query", title=title)
    axes.title.set_fontsize(10)
    axes.grid(alpha=0.3)
    axes.legend(title="shots")
    figure.tight_layout()
    figure.savefig(path, dpi=120)
    plt.close(figure)
