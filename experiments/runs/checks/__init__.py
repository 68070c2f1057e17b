"""Checks of a run that need its parts, and try them, before it starts."""
