"""A batch cut into parts whose gradients are summed in a fixed order, so that several processes may share the work."""
