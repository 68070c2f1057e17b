"""What lives on a device: its tasks (data sets), partitions, models, and its Flower app."""
