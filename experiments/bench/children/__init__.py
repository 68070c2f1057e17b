"""Systems under measurement, each in a process of its own."""
