"""Codecs of updates: one file is one codec, with one name on the command line (``--codec NAME``); docs/codecs.md."""

NO_CODEC = "none"
"""Name of the codec that sends replies as they are."""
