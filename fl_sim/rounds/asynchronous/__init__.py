"""Drives an asynchronous strategy: one server step after another, while clients are at work."""

from fl_sim.rounds.asynchronous.run_async import run_async

__all__ = ["run_async"]
