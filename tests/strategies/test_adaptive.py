"""The exponent that follows the validation loss, by hand on two clients, and what is refused."""

from pathlib import Path
from typing import Any

import pytest

from experiments.config.recipe_files import make
from experiments.run import main
from experiments.runs.execute import execute
from experiments.runs.setup import build
from fl_sim import load
from strategies.adaptive import Adaptive
from tests.experiments.config.tiny_world import NAMES as WORLD

HALFWAY = {"local.lr": 0.5, "local.steps": 1, "local.batch_size": 0}
"""One step from w to (w + m) / 2 for a client of curvature 1 and minimum m."""


@pytest.mark.parametrize("engine", ["loop", "vmap"])
def test_two_rounds_by_hand(quadratics: Any, engine: str) -> None:
    # Minima 6 and 8, so that from w = 0 the updates are 3 and 4. With q = 2 their power mean is sqrt(25 / 2), with
    # q = 4 (337 / 2)^(1/4). Where the loss is 10 - w the largest q is best: p = 4, and next 2 sqrt 2, 4, 4 sqrt 2.
    # Round 2 from w: updates (6 - w) / 2 and (8 - w) / 2. There the loss is w: the smallest q is best, 2 sqrt 2.
    federation, strategy = quadratics([(1, 6), (1, 8)]), Adaptive(p=8**0.5)
    start = (337 / 2) ** 0.25
    strategy.validate = lambda model: 10 - float(model["w"]) if strategy.server_state == {} else float(model["w"])
    rows = federation.train(strategy, HALFWAY, rounds=2, engine=engine).rows
    a, b, q = (6 - start) / 2, (8 - start) / 2, 8**0.5
    models = [start + ((a**e + b**e) / 2) ** (1 / e) for e in (q, 4, 2 * q)]
    assert [rows[1]["exponent"], rows[2]["exponent"]] == pytest.approx([4, q], rel=1e-9)
    names = ["val_loss_lower_p", "val_loss_same_p", "val_loss_higher_p"]
    assert [rows[1][names[0]], rows[1][names[2]]] == pytest.approx([10 - 12.5**0.5, 10 - start], rel=1e-12)
    assert [rows[2][name] for name in names] == pytest.approx(models, rel=1e-9)
    assert rows[2]["update_norm"] == pytest.approx(models[0] - start, rel=1e-8)


@pytest.mark.parametrize(
    "losses, kept",
    [([2, 1, 3], 1), ([1, 1, 1], 1), ([1, 2, 1], 0), ([float("nan"), float("inf"), 9], 2), ([2, 2, 1], 2)],
)
def test_the_lowest_finite_loss_wins_and_of_ties_the_nearest_exponent(
    quadratics: Any, losses: list[float], kept: int
) -> None:
    strategy, given = Adaptive(p=4.0, of="weights"), iter(losses)
    strategy.validate = lambda model: next(given)
    [_, row] = quadratics([(1, 6), (1, 8)]).train(strategy, HALFWAY).rows
    assert row["exponent"] == pytest.approx(4 * 2 ** ((kept - 1) / 2), rel=1e-9)


def test_exponents_stay_within_their_range() -> None:
    assert Adaptive(p=1.0).exponents == pytest.approx([1, 1, 2**0.5], rel=1e-9)
    assert Adaptive(p=32.0).exponents == pytest.approx([32 / 2**0.5, 32, 32], rel=1e-9)


def settings(out: Path, **more: Any) -> dict[str, Any]:
    """Settings of a run of four clients in a tiny world."""
    world = {"task": f"{WORLD}:tiny", "partition": "natural", "model": f"{WORLD}:linear", "engine": "vmap"}
    return {**world, "strategy": "adaptive", "validation": 0.2, "rounds": 3, "out": str(out), **more}


def test_a_run_that_goes_on_has_the_same_bits(tmp_path: Path) -> None:
    every = {"checkpoint_every": 1, "checkpoint_keep": 0}
    whole, _ = execute(build(make(**settings(tmp_path, **every))), quiet=True)
    [folder] = tmp_path.iterdir()
    again, _ = execute(build(make(**settings(tmp_path / "again", **every, fork=f"{folder}@2"))), quiet=True)
    rows = [load(summary["run_dir"]).rounds[["exponent", "val_loss", "digest"]] for summary in (whole, again)]
    assert rows[0].to_numpy().tolist()[3:] == rows[1].to_numpy().tolist()[1:]
    kept = load(whole["run_dir"]).rounds.iloc[1]
    assert kept["val_loss"] == min(kept[f"val_loss_{name}_p"] for name in ("lower", "same", "higher"))


def test_without_a_validation_share_it_is_refused(quadratics: Any, capsys: Any) -> None:
    assert main(["--strategy", "adaptive", "--task", "digits", "--quiet"]) == 2
    assert "validation = 0: strategy adaptive chooses by the loss" in capsys.readouterr().err
    strategy = Adaptive()
    with pytest.raises(ValueError, match="has none; give --validation"):
        strategy.validated({})
