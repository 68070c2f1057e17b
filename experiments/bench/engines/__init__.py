"""``python -m experiments.bench.engines``: each recipe on the engines loop and vmap, and what auto chooses."""
