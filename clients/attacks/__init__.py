"""Attacks of malicious clients: one file is one attack, with one name on the command line (``--attack NAME``).

An attack is a subclass of ``fl_sim.blocks.attack.Attack``: what a malicious client sends instead of its own update.
The attacks on this software's inputs and files are another package, ``experiments.attacks``.
"""
