"""What meta-learning strategies share."""
