"""``python -m experiments.bench.gpu``: everything that is measured on a GPU."""
