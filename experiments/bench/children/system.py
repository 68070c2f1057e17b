"""How a compared system is started."""

from dataclasses import dataclass, field


@dataclass(frozen=True)
class System:
    """How a compared system is started."""

    module: str
    """Name of its file in ``experiments/bench/systems``."""
    what: str
    """One line that describes it under the table."""
    options: dict[str, object] = field(default_factory=dict)
    """Options sent to the child process with its job."""
    env: dict[str, str] = field(default_factory=dict)
    """Environment variables of the child process."""
