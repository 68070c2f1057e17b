"""What all strategies share: ``from strategies.base import Strategy``."""

from strategies.base.naming import name_of
from strategies.base.round_replies import Pooled, Received
from strategies.base.strategy import Strategy

__all__ = ["Pooled", "Received", "Strategy", "name_of"]
