"""What one client computes: task, loss, local rule, optimisers, training."""
