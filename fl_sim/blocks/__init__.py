"""Which clients train together, on which samples."""
