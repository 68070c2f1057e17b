"""The settings of Ray's workers (``ray.*``)."""

from dataclasses import dataclass
from typing import Annotated, Literal

from annotated_types import Ge, Gt


@dataclass(frozen=True)
class Ray:
    """Ray's workers (``ray.*``), used where ``engine = ray``."""

    num_workers: Annotated[int, Ge(0)] = 0
    """Worker processes; 0: as many as the planner finds room for. Never changes a result."""
    num_cpus: Annotated[float, Gt(0)] = 1.0
    """CPUs that Ray reserves for each worker."""
    num_gpus: Annotated[float, Ge(0)] = 0.0
    """GPUs that Ray reserves for each worker; a fraction such as 0.25 works; 0 on a GPU: what the planner chooses."""
    engine: Literal["auto", "loop", "vmap"] = "auto"
    """Engine inside a worker, by the same rule as ``engine``."""
    address: str = ""
    """An existing cluster: HOST:PORT, ray://HOST:PORT, or auto; empty: Ray is started here, until the process ends."""
