"""Runs that begin at a round of another run."""
