"""Asynchronous runs in a config."""
