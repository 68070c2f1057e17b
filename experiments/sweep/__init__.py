"""Sweeps over any settings: grids and searches, several seeds each, that a kill at any moment does not lose.

``python -m experiments.sweep --help``, or from Python ``sweep(...)``. A trial is a point of the grid (or of the search)
with all of its seeds; each of its runs is an ordinary run folder.
"""

from experiments.sweep.from_python import Sweep, sweep

__all__ = ["Sweep", "sweep"]
