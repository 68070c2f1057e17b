"""What all strategies share: ``from strategies.base import Strategy``."""

from strategies.base.pooled import Pooled
from strategies.base.strategy import Strategy, name_of

__all__ = ["Pooled", "Strategy", "name_of"]
