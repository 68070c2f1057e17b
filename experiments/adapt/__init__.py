"""A trained run's model on tasks and clients that it has never seen: how well it adapts, by steps and shots."""
