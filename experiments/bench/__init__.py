"""``python -m experiments.bench``: this simulator, bare PyTorch and other simulators on the same work, interleaved. No paper.

One file a system in ``systems/``; each runs as a child process that does one round whenever it is told to.
"""

from pathlib import Path

ROOT = Path(__file__).parents[2]
"""The checkout, or the folder that the packages are installed in."""
