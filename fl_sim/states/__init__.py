"""The states of clients: in memory while they are few, in append-only files of the run's folder where they are many."""
