"""Virtual time of a run, from its config."""
