"""Pictures of round logs, under the name that notebooks use: ``from experiments.plots import curves``."""

from experiments.analysis.curves import curves

__all__ = ["curves"]
