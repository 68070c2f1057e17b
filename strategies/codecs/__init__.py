"""Codecs of updates: one file is one codec, with one name on the command line (``--codec NAME``); docs/codecs.md."""
