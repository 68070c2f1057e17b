"""Differences of two arms on the same seeds, with intervals, and tables in Markdown."""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import pandas as pd
from scipy import stats

from experiments.analysis.frames import interval


class Difference(NamedTuple):
    """What one arm has more than another, over the seeds that both have."""

    mean: float
    low: float
    """Low end of the 95 % t-interval of the mean difference; NaN for one seed, as ``high``."""
    high: float
    wins: int
    """Seeds in which the first arm has more."""
    seeds: int

    @property
    def sign(self) -> str:
        """``higher`` or ``lower`` where the interval excludes 0, else ``undecided``."""
        return "higher" if self.low > 0 else "lower" if self.high < 0 else "undecided"


def difference(table: pd.DataFrame, arm: str, other: str, value: str) -> Difference | None:
    """``value`` of ``arm`` minus that of ``other``, seed by seed; None where no seed has both.

    Parameters
    ----------
    table : DataFrame
        A line a run: ``arm``, ``seed`` and ``value``. One line for each arm and seed.
    """
    wide = table.pivot(index="seed", columns="arm", values=value).reindex(columns=[arm, other]).dropna()
    gaps = (wide[arm] - wide[other]).rename("gap").reset_index().assign(all="")
    if gaps.empty:
        return None
    found = interval(gaps, "all", "gap").iloc[0]
    wins = int((gaps["gap"] > 0).sum())
    return Difference(float(found["mean"]), float(found["low"]), float(found["high"]), wins, len(gaps))


def lower_bound(table: pd.DataFrame, arm: str, other: str, value: str) -> float | None:
    """The one-sided 95 % Student bound below the mean of ``arm`` minus ``other``; None below two common seeds."""
    wide = table.pivot(index="seed", columns="arm", values=value).reindex(columns=[arm, other]).dropna()
    gaps = wide[arm] - wide[other]
    if len(gaps) < 2:
        return None
    return float(gaps.mean() - stats.t.ppf(0.95, len(gaps) - 1) * gaps.std() / len(gaps) ** 0.5)


def signed(gap: Difference, digits: int = 3) -> str:
    """A difference as text: ``+.012 (+.003 to +.021)``."""
    if gap.seeds == 1:
        return f"{gap.mean:+.{digits}f}"
    return f"{gap.mean:+.{digits}f} ({gap.low:+.{digits}f} to {gap.high:+.{digits}f})"


def spread(values: pd.Series, digits: int = 3) -> str:
    """A mean with the lowest and the highest value, as text; - where there is no value."""
    values = values.dropna()
    if values.empty:
        return "-"
    mean = f"{values.mean():.{digits}f}"
    return mean if len(values) == 1 else f"{mean} ({values.min():.{digits}f} to {values.max():.{digits}f})"


def markdown(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> list[str]:
    """The lines of a table."""
    lines = [columns, ["---"] * len(columns), *rows]
    return ["| " + " | ".join(map(str, line)) + " |" for line in lines]
