"""Checks of a complete config: numbers that contradict each other."""

import math

from experiments.config.schema import Config
from fl_sim.errors import ConfigError
from fl_sim.executors.ray.options import Ray


def check_plan(c: Config) -> None:
    """Raise ConfigError for numbers that contradict each other."""
    total = math.inf if c.num_clients is None else c.num_clients
    if c.holdout_clients >= total:
        cure = f"of {total} clients at least one must train; choose at most {total - 1}"
        raise ConfigError(f"holdout_clients = {c.holdout_clients}: {cure}")
    if c.cohort > total - c.holdout_clients:
        rest = f"only {total - c.holdout_clients} clients train (clients {total}, holdout_clients {c.holdout_clients})"
        raise ConfigError(f"cohort = {c.cohort}: {rest}; choose at most that, or 0 for all")
    if c.local.momentum and c.local.optimizer != "sgd":
        why = f"means nothing to local.optimizer = {c.local.optimizer!r}; leave it out"
        raise ConfigError(f"local.momentum = {c.local.momentum}: {why}")
    if c.precision != "full" and (c.dtype != "float32" or (c.precision == "tf32" and c.device == "cpu")):
        why = f"means nothing with device = {c.device!r}, dtype = {c.dtype!r}; leave it out"
        raise ConfigError(f"precision = {c.precision!r}: {why}")
    if c.client_timeout and (c.engine == "flower" or (c.engine != "ray" and c.device != "cpu")):
        why = "Flower's simulation has" if c.engine == "flower" else f"device = {c.device!r} has, in this process,"
        cure = "leave it out, or use --engine ray" if c.engine != "flower" else "leave it out"
        raise ConfigError(f"client_timeout = {c.client_timeout:g}: {why} no way to end one client; {cure}")
    if c.engine != "ray" and c.ray != Ray():
        key, value = next((k, v) for k, v in vars(c.ray).items() if v != getattr(Ray(), k))
        raise ConfigError(
            f"ray.{key} = {value!r}: means nothing with engine = {c.engine!r}; add --engine ray, or leave it out"
        )
    if c.personalize_steps > 0 and not c.partition.params.get("held_out"):
        why = "personal evaluation needs test samples of each client's own, but partition.held_out = 0"
        raise ConfigError(f"personalize_steps = {c.personalize_steps}: {why}; set --partition.held_out 0.2")
