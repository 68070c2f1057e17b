"""Tables for papers: numbers, and the three forms."""

from pathlib import Path

import pandas as pd
import pytest
from scipy import stats

from experiments.analysis.paper_tables import as_latex, as_markdown, paper_table, save_table

FRAME = pd.DataFrame(
    {"strategy": ["fed_avg", "fed_avg", "b"], "seed": [0, 1, 0], "accuracy": [0.5, 0.7, 0.25], "loss": [1.0, None, 2]}
)


def test_a_cell_is_the_mean_with_half_of_the_interval_and_the_number_of_seeds(tmp_path: Path) -> None:
    table = paper_table(FRAME, "strategy", ["accuracy", "loss"])
    half = stats.t.ppf(0.975, 1) * 0.1  # standard error of .5 and .7
    assert table["accuracy"].tolist() == [f"0.600 +- {half:.3f} (2)", "0.250 (1)"]
    assert table["loss"].tolist() == ["1.000 (1)", "2.000 (1)"]
    assert as_markdown(table).splitlines()[1:3] == [
        "| --- | --- | --- |",
        f"| fed_avg | 0.600 +- {half:.3f} (2) | 1.000 (1) |",
    ]
    latex = as_latex(table)
    assert rf"fed\_avg & 0.600 $\pm$ {half:.3f} (2) & 1.000 (1) \\" in latex and latex.startswith(
        r"\begin{tabular}{lll}"
    )
    for ending, begin in {".md": "| strategy", ".tex": r"\begin", ".csv": "strategy,accuracy,loss"}.items():
        assert save_table(table, tmp_path / f"t{ending}").read_text().startswith(begin)
    with pytest.raises(ValueError, match="must end with .md, .tex, .csv"):
        save_table(table, tmp_path / "t.html")
