"""What all strategies share: ``from strategies.base import Strategy``."""

from strategies.base.strategy import Strategy, name_of

__all__ = ["Strategy", "name_of"]
