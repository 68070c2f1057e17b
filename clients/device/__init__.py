"""One real device: how it answers a message, its samples, its state, its SuperNode."""
