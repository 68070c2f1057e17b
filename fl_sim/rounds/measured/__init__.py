"""What the rounds of a run take and change: time of pooling, memory, the drift of clients, the step of the model."""
