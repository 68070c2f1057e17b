"""``python -m experiments.bench.apps LIST``: Flower apps on Flower's own simulation and on this project, in turn."""
