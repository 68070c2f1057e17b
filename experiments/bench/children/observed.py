"""What was measured of one system and of one workload."""

from dataclasses import dataclass, field
from typing import Any

from experiments.bench.workloads.catalogue import Work


@dataclass
class Raw:
    """What was seen of one system."""

    system: str
    status: str = "ok"
    """ok, unavailable or failed."""
    reason: str = ""
    seconds: list[float] = field(default_factory=list)
    """Of each timed go."""
    facts: list[dict[str, Any]] = field(default_factory=list)
    """What each timed go says of itself: examples, updates."""
    startup_s: list[float] = field(default_factory=list)
    setup_s: list[float] = field(default_factory=list)
    """Start-up without the imports."""
    peak: tuple[int, int] = (0, 0)
    """Bytes: see ``Child``."""
    accuracy: float | None = None

    def add(self, facts: dict[str, Any]) -> None:
        """A timed go."""
        self.seconds.append(facts.pop("seconds"))
        self.facts.append(facts)


@dataclass(frozen=True)
class Compared:
    """A work, as it was done, and what was seen."""

    work: Work
    raws: list[Raw]
    prepared: dict[str, Any]
    yardstick: list[dict[str, Any]]
