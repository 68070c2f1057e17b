"""A picture of a run's timeline: devices as rows, their work and waiting as bars."""
