"""Faster forms of the same arithmetic.

Private names of PyTorch are used here and in ``fl_sim.rng`` only, with fallbacks.
"""
