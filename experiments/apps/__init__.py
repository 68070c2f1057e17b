"""Runs of ordinary Flower apps, whose code is not changed."""
