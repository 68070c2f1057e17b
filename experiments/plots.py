"""``from experiments.plots import curves``: pictures of round logs (``experiments.analysis.curves``)."""

from experiments.analysis.curves import curves

__all__ = ["curves"]
