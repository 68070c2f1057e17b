"""Pictures of round logs: a short name for ``experiments.analysis.curves``."""

from experiments.analysis.curves import curves

__all__ = ["curves"]
