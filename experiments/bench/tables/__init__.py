"""From measured figures to tables and pictures."""
