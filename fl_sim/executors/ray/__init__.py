"""Blocks on Ray's workers."""
