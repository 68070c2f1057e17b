"""Settings of asynchronous runs: what they mean where they are not given, and what such a run cannot have."""

import math
from collections.abc import Mapping

from experiments.config.choices import Choice
from experiments.config.nesting import Settings
from experiments.config.schema import HONEST, Config
from fl_sim.errors import ConfigError

AT_THE_END = ("evaluate_every", "digest_every")
"""Settings that are 0 in an asynchronous run unless they are given: the initial and the final model only."""
SYNCHRONOUS = "acts with an asynchronous strategy (fedasync, fedbuff, ...), and this run's is {}"
"""Why a setting does nothing."""


def is_asynchronous(strategy: Choice) -> bool:
    """Whether a strategy's server steps while clients are at work."""
    return bool(getattr(strategy.component, "asynchronous", False))


def defaults(strategy: Choice, settings: Settings) -> Settings:
    """The values of settings that are not given and that an asynchronous run has otherwise."""
    return {key: 0 for key in AT_THE_END if key not in settings} if is_asynchronous(strategy) else {}


def idle_in_rounds(c: Config) -> Mapping[str, str]:
    """The settings that do nothing in a synchronous run, and why."""
    if is_asynchronous(c.strategy):
        return {}
    why = SYNCHRONOUS.format(c.strategy.name)
    return {"concurrency": f"{why}; cohort says how many clients a round has", "evaluate_virtual": why}


def told(c: Config) -> str:
    """What is named where an asynchronous run is refused."""
    return (
        f"strategy.name = {c.strategy.name!r}, concurrency = {c.concurrency}, evaluate_virtual = {c.evaluate_virtual:g}"
    )


def check_asynchronous(c: Config, clients: float, strategy: object) -> None:
    """Raise ConfigError for what an asynchronous run cannot have, where ``strategy`` is asynchronous.

    ``clients``: how many may train; infinite where that is not known yet.
    """
    from fl_sim.population.devices import whole_nanoseconds  # imported here, because they import torch and Flower
    from fl_sim.wire.arrivals import AsynchronousStrategy

    if not isinstance(strategy, AsynchronousStrategy):
        return
    whole_nanoseconds("evaluate_virtual", c.evaluate_virtual)
    strategy.concurrency = c.concurrency or (0 if math.isinf(clients) else int(clients))
    replies = strategy.replies_a_step
    if c.concurrency > clients:
        raise ConfigError(f"concurrency = {c.concurrency}: only {clients:g} clients train; choose at most that")
    if replies > (c.concurrency or clients):
        key = "strategy.buffer" if "buffer" in c.strategy.params else "strategy.name"
        value = c.strategy.params.get("buffer", c.strategy.name)
        what = f"a step takes {replies} replies, and {c.concurrency or clients:g} clients are in flight (concurrency)"
        raise ConfigError(f"{key} = {value!r}: {what}; take fewer, or let more be in flight")
    if c.engine == "flower":
        raise ConfigError(f"engine = 'flower', {told(c)}: Flower's simulation has no virtual time; leave it out")
    if c.attack.name != HONEST:
        why = "malicious clients are a share of each round, and an asynchronous run has none"
        raise ConfigError(f"attack.name = {c.attack.name!r}: {why}; leave it out")
    if c.log_drift:
        why = "clients of an asynchronous run start from several models, from which no common drift is measured"
        raise ConfigError(f"log_drift = true: {why}; leave it out")
    if c.fork:
        why = f"{told(c)}: an asynchronous run begins with no client in flight, and a checkpoint has some"
        raise ConfigError(f"fork = {c.fork!r}: {why}; leave it out")
    unseen = c.validation_clients > 0  # whoever reads these has personal evaluations (check_validation_clients)
    rule = "" if unseen and c.stop.on == "validation" else c.stop.rule
    reads = rule or ("keep_best = true" if c.keep_best and not unseen else "")
    if reads and not (c.evaluate_every or c.evaluate_virtual):
        what = "reads evaluations, of which an asynchronous run has none before its end"
        raise ConfigError(f"{reads}: {what}; give --evaluate_every or --evaluate_virtual")
