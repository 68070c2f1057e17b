"""What codecs cost: bytes by their formula, and seconds beside a round of S1."""
