"""What other libraries log during a run: in files of its folder."""
