"""Attacks on runs that anyone can repeat: kills at random moments, and every way in which a run may end."""
