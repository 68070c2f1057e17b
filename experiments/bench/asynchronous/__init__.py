"""Asynchronous runs against one client after another."""
