"""No attack: every client is honest. No paper."""

from fl_sim.blocks.attack import Attack


class NoAttack(Attack):
    """No client is malicious."""
