"""Files of a run beside its tables: the best models, the partition."""
