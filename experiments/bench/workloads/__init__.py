"""The workloads: what is computed, and the input files from which every system reads the same data."""
