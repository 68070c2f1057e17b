"""Metrics of a whole set of samples, such as F1: those offered by name, a user's own, and their values."""
