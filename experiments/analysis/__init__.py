"""Analysis of round logs: a tidy table of several runs, the cost of a target, intervals over seeds, a comparison.

Pictures are drawn by ``experiments.analysis.curves``, which is not imported here because matplotlib takes long to load.
"""

from experiments.analysis.compare import compare, outcome
from experiments.analysis.frames import ToTarget, facts, groups, interval, read, tidy, to_target
from experiments.analysis.text_table import format_table

__all__ = ["ToTarget", "compare", "facts", "format_table", "groups", "interval", "outcome", "read", "tidy", "to_target"]
