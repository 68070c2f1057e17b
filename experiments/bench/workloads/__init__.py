"""The work that all systems are given."""
