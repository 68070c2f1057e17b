"""Statistics over seeds: paired differences, how many seeds a difference needs, the area under a curve, fairness."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from scipy import stats

from experiments.analysis.frames import interval


def paired(frame: pd.DataFrame, by: str, value: str = "accuracy", baseline: object = None) -> pd.DataFrame:
    """What each group has more than a baseline on the same seeds: mean of the differences with its 95 % t-interval.

    Parameters
    ----------
    frame : DataFrame
        One row for each run, with ``seed``, such as the last rounds of ``tidy``.
    by : str
        The column whose values make a group, such as ``strategy``.
    value : str
        The column to compare.
    baseline : object
        The group that the others are compared with; default: the first.

    Returns
    -------
    DataFrame
        ``by``, then ``mean, std, n, low, high`` of the differences, and ``wins``, the seeds in which the group has
        more; ``n`` is the number of seeds that both have. A difference is decided where the interval excludes 0.

    Raises
    ------
    ValueError
        Where a group has several rows of one seed, or there is no such baseline.
    """
    groups = list(dict.fromkeys(frame[by]))
    first = groups[0] if baseline is None and groups else baseline
    if first not in groups:
        raise ValueError(f"baseline = {first!r}: no row has it as {by}; there are {', '.join(map(str, groups))}")
    if frame.duplicated([by, "seed"]).any():
        raise ValueError(f"by = {by!r}: several rows of one seed in a group; keep one row a run, the last round, say")
    wide = frame.pivot(index="seed", columns=by, values=value)
    rows = []
    for group in groups:
        gaps = (wide[group] - wide[first]).dropna()
        if group == first or gaps.empty:
            continue
        named = pd.DataFrame({by: group, "seed": gaps.index, "gap": gaps.to_numpy()})
        rows.append(interval(named, by, "gap").assign(wins=int((gaps > 0).sum())))
    return pd.concat(rows, ignore_index=True) if rows else pd.DataFrame(columns=[by, "mean", "std", "n", "low", "high"])


def seeds_needed(difference: float, std: float, power: float = 0.8, most: int = 10_000) -> int:
    """How many seeds a paired difference needs, so that its 95 % t-interval excludes 0 with probability ``power``.

    By the noncentral t distribution, two-sided (Cohen, "Statistical power analysis", 1988, chapter 2).

    Parameters
    ----------
    difference : float
        The true mean difference that is to be seen.
    std : float
        Standard deviation of the differences between seeds: ``std`` of ``paired``.
    power : float
        The probability.
    most : int
        Where more are needed, ValueError is raised; so it is where a number is not above 0.
    """
    if not (abs(difference) > 0 and std > 0 and 0 < power < 1):
        given = f"difference = {difference!r}, std = {std!r}, power = {power!r}"
        raise ValueError(f"{given}: must be other than 0, above 0, and between 0 and 1")
    numbers = np.arange(2, most + 1)
    critical = stats.t.ppf(0.975, numbers - 1)
    shift = abs(difference) / std * np.sqrt(numbers)
    reached = stats.nct.sf(critical, numbers - 1, shift) + stats.nct.cdf(-critical, numbers - 1, shift) >= power
    if not reached.any():
        raise ValueError(f"difference = {difference!r}, std = {std!r}: needs more than {most} seeds")
    return int(numbers[reached.argmax()])


def area(rounds: pd.DataFrame, value: str = "accuracy", axis: str = "round") -> float:
    """The area under a curve, divided by its length: the mean over the axis, with straight lines between evaluations.

    ``rounds`` : of one run. NaN where fewer than two rounds have the value. ``axis`` : ``round``, ``virtual_time``.
    """
    points = rounds[[axis, value]].dropna()
    x, y = points[axis].to_numpy(float), points[value].to_numpy(float)
    if len(x) < 2 or x[-1] == x[0]:
        return float("nan")
    return float(((y[1:] + y[:-1]) / 2 * np.diff(x)).sum() / (x[-1] - x[0]))


def fairness(values: Sequence[float] | np.ndarray | pd.Series) -> dict[str, float]:
    """How evenly a number, such as the accuracy of each client, is spread over clients.

    Returns
    -------
    dict
        ``clients``, how many have a number; ``mean``; ``std``, over clients (divided by their number); ``worst_10``,
        the mean of the worst tenth of the clients (at least one); ``gini``: Gini's coefficient, sum over all pairs of
        abs(x_i - x_j) / (2 n^2 mean), 0 where all have the same, NaN where the mean is not above 0.
    """
    x = np.sort(np.asarray(values, float))
    x = x[~np.isnan(x)]
    if not len(x):
        return {"clients": 0, **dict.fromkeys(("mean", "std", "worst_10", "gini"), float("nan"))}
    rank = np.arange(1, len(x) + 1)
    gini = ((2 * rank - len(x) - 1) * x).sum() / (len(x) ** 2 * x.mean()) if x.mean() > 0 else float("nan")
    worst = x[: max(1, len(x) // 10)].mean()
    numbers = {"mean": x.mean(), "std": x.std(), "worst_10": worst, "gini": gini}
    return {"clients": len(x), **{name: float(number) for name, number in numbers.items()}}
