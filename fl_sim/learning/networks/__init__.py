"""What a user's network may be: its outputs, the names of its state, and the forms in which it is computed."""
