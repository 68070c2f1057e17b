"""What losses and metrics give where they are tried on a few samples before a run."""
