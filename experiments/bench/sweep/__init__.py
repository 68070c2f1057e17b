"""``python -m experiments.bench.sweep``: fifteen runs trained as one batch (``--vmap_over``), and a lower bound."""
