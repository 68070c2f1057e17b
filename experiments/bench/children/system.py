"""How a compared system is started."""

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class System:
    """How a system is started."""

    module: str
    """Its file here."""
    what: str
    """One line for the table."""
    options: dict[str, Any] = field(default_factory=dict)
    """Told to the child."""
    env: dict[str, str] = field(default_factory=dict)
    """Set for the child."""
