"""Flower apps written by others, run unchanged."""
