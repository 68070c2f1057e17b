"""Measurements of ``--vmap_over``."""
