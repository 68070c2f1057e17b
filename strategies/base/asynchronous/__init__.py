"""What asynchronous strategies share: ``from strategies.base.asynchronous import Arrived, Asynchronous``."""

from fl_sim.wire.arrivals import Arrived
from strategies.base.asynchronous.server_steps import Asynchronous

__all__ = ["Arrived", "Asynchronous"]
