"""What the rounds of a run take: time of pooling, memory, the drift of their clients."""
