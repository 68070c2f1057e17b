"""What the author of a local rule imports, under one name: ``from fl_sim import local``.

The definitions are in ``fl_sim.learning``: ``rule`` (what a rule is, and which samples its steps use) and
``training`` (one optimiser step a batch).
"""

from fl_sim.learning.rule import Draw, LocalRule, Metrics, Sizes, Streams, Update, mean_metrics, passes
from fl_sim.learning.training import Gradient, num_steps, train

__all__ = [
    "Draw",
    "Gradient",
    "LocalRule",
    "Metrics",
    "Sizes",
    "Streams",
    "Update",
    "mean_metrics",
    "num_steps",
    "passes",
    "train",
]
