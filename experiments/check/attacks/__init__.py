"""Attacks on runs, each a command that counts what is refused, seen or silent: docs/reliability.md has the results."""
