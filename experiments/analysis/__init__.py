"""Questions to round logs: one tidy table, what a target costs, means and intervals over seeds, a comparison.

Pictures are in ``experiments.analysis.curves``, which loads matplotlib.
"""

from experiments.analysis.compare import compare, outcome
from experiments.analysis.frames import ToTarget, facts, groups, interval, read, tidy, to_target
from experiments.analysis.text_table import format_table

__all__ = ["ToTarget", "compare", "facts", "format_table", "groups", "interval", "outcome", "read", "tidy", "to_target"]
