"""``python -m experiments.bench``: times this simulator, plain PyTorch and other simulators on the same work, in turn.

workloads/   what is computed: the catalogue of workloads, and the input files that every system reads
systems/     the compared systems, one file each; each runs as a child process
children/    the child processes: how they are started, frozen, measured and ended, and the protocol with their parent
tables/      measured figures as Markdown tables (README.md, docs/speed.md) and bar charts
sweep/ gpu/  two more commands, ``experiments.bench.sweep`` (``--vmap_over``) and ``experiments.bench.gpu`` (one GPU)
apps/        ``experiments.bench.apps``: Flower apps on Flower's own simulation and on this project
"""

from pathlib import Path

ROOT = Path(__file__).parents[2]
"""The checkout, or the folder in which the packages are installed."""
