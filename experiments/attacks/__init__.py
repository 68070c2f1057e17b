"""Attacks that anyone can repeat: bad inputs, kills at random moments, every end of a run, flipped bits in files."""
