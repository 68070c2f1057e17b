"""The tables of a config that are not part of local training: ``server``, ``system`` and ``stop``."""

from dataclasses import dataclass
from typing import Annotated, Any, Literal

from annotated_types import Ge, Gt, Le, Lt

from clients.silo.silo_options import Silo
from fl_sim.executors.ray.options import Ray
from fl_sim.learning.settings import Local


@dataclass(frozen=True)
class Server:
    """The server's step (``server.*``)."""

    lr: Annotated[float, Gt(0)] = 1.0
    """Step from the global model toward the pooled one; 1 replaces it."""


@dataclass(frozen=True)
class System:
    """Behaviour of the clients' devices (``system.*``)."""

    stragglers: Annotated[float, Ge(0), Lt(1)] = 0.0
    """Share of a round's clients (never all) that finish only a part of their work; the strategy drops or keeps it."""
    max_examples: Annotated[float, Gt(0)] = 1e9
    """Most samples that a client may have or claim to have, and so its largest weight: more of them are refused."""

    deadline: Annotated[float, Ge(0)] = 0.0
    """Virtual seconds after which a round is closed; what comes later is dropped, or kept in part; 0: none."""
    over_select: Annotated[float, Ge(1), Le(100)] = 1.0
    """Clients asked per client of the cohort: the round is closed by the first cohort of them that answer."""


@dataclass(frozen=True)
class Stop:
    """When a run ends early (``stop.*``): after the round that meets a condition, with status ``stopped``."""

    target: Annotated[float, Ge(0), Le(1)] = 0.0
    """Accuracy (a fraction) of stop.on at which a run ends; 0: none."""
    patience: Annotated[int, Ge(0)] = 0
    """Evaluations in a row without a new best accuracy (or loss, if there is none) after which a run ends; 0: none."""
    virtual_time: Annotated[float, Ge(0)] = 0.0
    """Virtual seconds after which no further round begins; 0: none."""
    on: Literal["validation", "test"] = "validation"
    """What stop.target, stop.patience read: validation (clients, else the central share); test chooses by test data."""

    @property
    def rule(self) -> str:
        """The first rule that is set, as ``stop.target = 0.9``; empty where none is."""
        rules = [f"stop.{name} = {value}" for name in ("target", "patience") if (value := getattr(self, name))]
        return rules[0] if rules else ""


SECTIONS: dict[str, Any] = {"local": Local, "server": Server, "system": System, "ray": Ray, "silo": Silo, "stop": Stop}
"""The tables of a config that have a class of their own."""
