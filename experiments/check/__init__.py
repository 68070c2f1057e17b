"""Contract checks of strategies, tasks, partitions and models."""
