"""What one client computes: task, loss, local rule, training."""
