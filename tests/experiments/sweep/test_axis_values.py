"""What ``--vary`` says, and what is refused of it."""

import numpy as np
import pytest

from experiments.sweep.axis_values import Axis, axes_from, axes_of, grid
from fl_sim.errors import ConfigError


def test_values_lists_and_ranges() -> None:
    axes = axes_of(["strategy.mu=0;0.01", "--local.epochs_of=1,1,5;2,2,2", "strategy.name=fedavg;fedprox"])
    assert axes[0] == Axis("strategy.mu", ("0", "0.01")) and axes[1].values == ("1,1,5", "2,2,2")
    assert axes[2].key == "strategy" and not axes[2].is_range
    ranges = axes_of(["a=1e-3..1e-1", "b=log:1e-3..1e-1", "c=int:1..20", "d=log:int:1..64"])
    assert [(r.low, r.high, r.log, r.whole) for r in ranges] == [
        *((0.001, 0.1, False, False), (0.001, 0.1, True, False)),
        *((1, 20, False, True), (1, 64, True, True)),
    ]
    assert axes_from({"a": np.array([1, 2]), "b": range(2), "c": "log:1..2"})[0].values == (1, 2)


def test_a_grid_is_every_combination_and_the_last_axis_varies_fastest() -> None:
    points = grid(axes_from({"a": [0, 1], "b": ["x", "y"]}))
    assert [tuple(point.values()) for point in points] == [(0, "x"), (0, "y"), (1, "x"), (1, "y")]


@pytest.mark.parametrize(
    "texts, message",
    [
        ([], r"vary: names no setting; give --vary 'KEY=VALUE;VALUE'"),
        (["mu"], r"vary = 'mu': must be KEY=VALUE;VALUE"),
        (["a=0;;1"], r"vary = 'a=0;;1': has an empty value"),
        (["a=0;1;0"], r"vary = a: names a value twice"),
        (["a=0;1", "a=2"], r"vary = 'a': is given twice"),
        (["seed=0;1"], r"vary = 'seed': is not varied; give the seeds with --seed 0..4"),
        (["quiet=true;false"], r"vary = 'quiet': is not varied; it is an option of a call"),
        (["a=log:0..1"], r"vary = 'a=log:0..1': a logarithmic range begins above 0"),
        (["a=2..1"], r"vary = 'a=2..1': its ends must be two numbers, the smaller one first"),
        (["a=int:0.5..3"], r"its ends must be whole numbers"),
        (["a=1e..3"], r"is no range of numbers"),
    ],
)
def test_what_says_nothing_clear_is_refused_with_the_cure(texts: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        axes_of(texts)


def test_a_range_is_for_a_search() -> None:
    with pytest.raises(
        ConfigError, match=r"vary = 'a': 1..2 is a range, from which only a search draws; give --trials N"
    ):
        grid(axes_of(["a=1..2"]))
