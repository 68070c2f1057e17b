"""``python -m experiments.studies.pooling.pool_bias``: what a round of max pooling does to each layer.

The maximum of K copies w + d_k with spread s lies above their mean by about s times the expected maximum of K standard
normal numbers (1.54 for K = 10), in *every* coordinate: a shift with one sign. The command trains the first round of
the study ``pools`` (MNIST, 1000 clients of 60 digits, 10 a round) with three pools of the same deltas and prints a line
a leaf of the model, means over its numbers: the spread over clients, the shift by the mean and by the maximum, and what
the maximum has more than the mean, in spreads.
"""

import argparse
import sys
import tempfile
from collections.abc import Sequence
from typing import Any, NamedTuple

from experiments.command_ends import ended
from experiments.run import run
from experiments.studies.paired import markdown
from fl_sim import Callback, Run, tree
from fl_sim.tree import Tree

SETTING: dict[str, Any] = {"task": "mnist", "partition": "iid", "clients": 1000, "cohort": 10}
"""That of the study ``pools``, but for the model."""
LOCAL = {"epochs": 1, "batch_size": 10, "lr": 0.1}


class Bias(NamedTuple):
    """Means over the numbers of a leaf, after one round."""

    leaf: str
    spread: float
    """Standard deviation over clients of a number."""
    mean: float
    """Change of the global model by the mean."""
    max: float
    """Change of the global model by the maximum."""
    excess: float
    """What the maximum has more than the mean, in spreads."""


class Change(Callback):
    """Keeps what the first round changed in the model."""

    change: Tree

    def on_run_start(self, run: Run) -> None:
        """Note the initial model."""
        self.start = tree.clone(run.model)

    def on_round_end(self, run: Run, row: dict[str, object]) -> None:
        """Note the difference."""
        self.change = tree.sub(run.model, self.start)


def changed(reduction: str, settings: dict[str, Any]) -> Tree:
    """The change of the model by a pool of deltas in one round; each client weighs the same."""
    change, weighting = Change(), {"weighting": "uniform"} if reduction == "mean" else {}
    strategy: Any = {"name": "pooled", "reduction": reduction, "of": "deltas"}
    with tempfile.TemporaryDirectory() as out:
        own: dict[str, Any] = {**settings, **weighting, "strategy": strategy, "rounds": 1, "out": out}
        run(callbacks=[change], **own)
    return change.change


def biases(settings: dict[str, Any]) -> list[Bias]:
    """A line a leaf; ``settings`` are those of ``experiments.run.run``, with a ``cohort``."""
    mean, most, norm = (changed(reduction, settings) for reduction in ("mean", "max", "l2norm"))
    found = []
    for name, m in mean.items():
        spread = (norm[name].square() / settings["cohort"] - m.square()).clamp_min(0).sqrt()
        moved = spread > 1e-3 * spread.max()  # the border of MNIST's pictures is always 0, and its weights stay
        excess = ((most[name] - m) / spread)[moved].mean()
        values = spread[moved].mean(), m[moved].mean(), most[name][moved].mean(), excess
        found.append(Bias(name, *map(float, values)))
    return found


def main(argv: Sequence[str] | None = None) -> int:
    """The command. Returns 0."""
    parser = argparse.ArgumentParser(prog="python -m experiments.studies.pooling.pool_bias", description=__doc__)
    parser.add_argument("--model", default="mlp", help="a name, as on the command line of experiments.run")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(argv)
    rows = biases({**SETTING, "local": LOCAL, "model": options.model, "seed": options.seed})
    titles = ["leaf", "spread over clients", "shift by mean", "shift by max", "excess in spreads"]
    print("\n".join(markdown(titles, [[row.leaf, *(f"{x:+.4f}" for x in row[1:])] for row in rows])))
    return 0


if __name__ == "__main__":
    sys.exit(ended(main))
