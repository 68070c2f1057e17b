"""Virtual time: the clock of a run, and its rounds."""
