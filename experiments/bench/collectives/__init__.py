"""Seconds and bytes of sums over processes, beside the library's and the alpha-beta model."""
