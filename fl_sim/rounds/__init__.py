"""Drives a strategy, round by round: hooks, failures, callbacks, checkpoints, log lines."""
