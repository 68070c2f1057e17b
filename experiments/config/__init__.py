"""From recipes, flags and Python to one checked config a run."""
