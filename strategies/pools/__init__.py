"""Pools, one a file: associative reductions of client models."""
