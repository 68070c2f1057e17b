"""``--vmap_over KEY=A,B;KEY=C,D``: the runs at every combination of values."""

import itertools
from collections.abc import Sequence
from dataclasses import replace
from typing import Annotated, Any, get_args, get_origin, get_type_hints

from experiments.config.asynchronous.asynchronous_settings import is_asynchronous, told
from experiments.config.choices import parameters
from experiments.config.nesting import Settings
from experiments.config.recipe_files import configs
from experiments.config.schema import Config
from experiments.config.tables import Server
from experiments.config.values import seeds
from fl_sim.dotted import flatten
from fl_sim.errors import ConfigError
from fl_sim.learning.settings import Local


def over(recipe: Settings, explicit: Settings, axes: str) -> list[Config]:
    """The runs of ``configs`` at every combination of the values of ``KEY=A,B;KEY=C,D``; seeds innermost.

    A key must be a number in which runs of one batch may differ: a float of ``local``, ``server`` or the strategy, or
    ``seed``. Raises ConfigError.
    """
    if not axes:
        return configs(recipe, explicit)
    parsed = [_axis(part) for part in axes.split(";")]
    engine, plain = explicit.get("engine", recipe.get("engine", "auto")), configs(recipe, explicit)
    names = ", ".join(dict.fromkeys(config.strategy.name for config in plain))
    if engine not in ("auto", "vmap"):
        raise ConfigError(f"vmap_over = {axes!r}: needs engine vmap, but engine = {engine!r}; leave that out")
    if plain[0].client_timeout:
        why = "one client of a batch of runs cannot be ended; leave one of the two out"
        raise ConfigError(f"client_timeout = {plain[0].client_timeout:g}, vmap_over = {axes!r}: {why}")
    if is_asynchronous(plain[0].strategy):
        why = "each asynchronous run waits for other clients; run them one after another"
        raise ConfigError(f"vmap_over = {axes!r}, {told(plain[0])}: {why}")
    if "," in names:
        raise ConfigError(
            f"strategy.name = {names}: runs of one batch (vmap_over) have one strategy; run them one after another"
        )
    given = flatten(explicit)
    for number, (key, values) in enumerate(parsed):
        problem = "has a value of its own, which these would replace; leave one of them out" if key in given else ""
        if key in [other for other, _ in parsed[:number]]:
            raise ConfigError(f"vmap_over = {axes!r}: names {key} twice; give all of its values in one list")
        if len(set(values)) < len(values):
            raise ConfigError(f"vmap_over = {axes!r}: names a value twice, which would count one run as two")
        if problem:
            raise ConfigError(f"vmap_over = {axes!r}: {key} {problem}")
        _check_axis(key, values, axes, plain[0])
    batch: list[Config] = []
    for chosen in itertools.product(*(values for _, values in parsed)):
        point = dict(explicit)
        for (key, _), value in zip(parsed, chosen, strict=True):
            table, _, name = key.rpartition(".")
            point = {**point, **({table: {**point.get(table, {}), name: value}} if table else {name: value})}
        batch += configs(recipe, point)
    return [replace(config, engine="vmap") for config in batch]


def _axis(text: str) -> tuple[str, list[Any]]:
    """``local.lr=.01,.1`` -> its key and values. Raises ConfigError."""
    key, equals, values = text.strip().partition("=")
    if not equals or not values:
        raise ConfigError(f"vmap_over = {text!r}: must be KEY=A,B,C, such as local.lr=.01,.03,.1")
    if key == "seed":
        return key, list(seeds(values))
    try:
        return key, [float(value) for value in values.split(",")]
    except ValueError:
        raise ConfigError(
            f"vmap_over = {text!r}: {key} needs numbers between commas, such as local.lr=.01,.03,.1"
        ) from None


def _check_axis(key: str, values: Sequence[Any], axes: str, config: Config) -> None:
    """Raise ConfigError for a setting that runs of one batch cannot differ in."""
    known = may_differ(config)
    if key != "seed" and (key not in known or (key == "local.clip_norm" and 0 in values)):
        why = "= 0 means no clipping, another computation"
        if key not in known:
            why = "changes what is computed, not a number in it"
        raise ConfigError(
            f"vmap_over = {axes!r}: {key} {why}; runs of one batch may differ in {', '.join(['seed', *known])}"
        )


def may_differ(config: Config) -> list[str]:
    """The settings in which runs of one batch may differ, besides the seed: floats that a local rule computes with."""
    own = {k: p.hint for k, p in parameters("strategy", config.strategy.component).items()}
    hints = {
        "local": get_type_hints(Local, include_extras=True),
        "server": get_type_hints(Server, include_extras=True),
        "strategy": own,
    }
    return [f"{table}.{k}" for table, types in hints.items() for k, hint in types.items() if _float(hint)]


def _float(hint: Any) -> bool:
    return hint is float or (get_origin(hint) is Annotated and get_args(hint)[0] is float)
