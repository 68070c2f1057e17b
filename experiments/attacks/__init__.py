"""Attacks that anyone can repeat: kills at random moments, every way in which a run may end, flipped bits in files."""
