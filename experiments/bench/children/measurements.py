"""The measurements of one system, and of all systems on one workload."""

from dataclasses import dataclass, field
from typing import Any

from experiments.bench.workloads.catalogue import Work


@dataclass
class SystemMeasurements:
    """What was measured of one system on one workload."""

    system: str
    status: str = "ok"
    """ok, unavailable (a package is missing) or failed."""
    reason: str = ""
    """Why the status is not ok."""
    seconds: list[float] = field(default_factory=list)
    """Seconds of each timed repetition."""
    facts: list[dict[str, Any]] = field(default_factory=list)
    """The facts that the system reports of each timed repetition: examples, updates."""
    startup_s: list[float] = field(default_factory=list)
    """Seconds from the start of the process until it is ready."""
    setup_s: list[float] = field(default_factory=list)
    """Start-up without the imports."""
    peak: tuple[int, int] = (0, 0)
    """Largest memory in bytes: see ``Child.peak``."""
    accuracy: float | None = None
    """Accuracy of the final global model on the test samples."""

    def add(self, answer: dict[str, Any]) -> None:
        """Store a child's answer to a timed repetition."""
        self.seconds.append(answer.pop("seconds"))
        self.facts.append(answer)


@dataclass(frozen=True)
class WorkMeasurements:
    """What was measured on one workload."""

    work: Work
    """The workload as it was run."""
    systems: list[SystemMeasurements]
    prepared: dict[str, Any]
    """Facts about the input files: whether the arrays are random, the model's number of parameters."""
    yardstick: list[dict[str, Any]]
    """The facts that the matrix product reported in each turn; empty where it did not run."""
