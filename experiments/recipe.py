"""Recipes: TOML files of settings, and what is laid over them.

A flag, or a keyword from Python, overrides the recipe; the recipe overrides the defaults of the dataclasses.
"""

import itertools
import tomllib
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, get_args, get_origin, get_type_hints

from experiments.config import Config, Settings, expand, nested, single
from experiments.nouns import PACKAGES, load, names_in, parameters
from experiments.values import ConfigError, seeds
from fl_sim import registry
from fl_sim.settings import Local, Server

RECIPES = Path(__file__).parent / "recipes"


def names() -> list[str]:
    """The recipes that ship here."""
    return sorted(path.stem for path in RECIPES.glob("*.toml"))


def title(recipe: str) -> str:
    """What a recipe says of itself: its first comment."""
    lines = (RECIPES / f"{recipe}.toml").read_text(encoding="utf-8").splitlines()
    return next((line.lstrip("# ").rstrip() for line in lines if line.startswith("#")), "")


def read(recipe: str) -> Settings:
    """The settings of ``experiments/recipes/RECIPE.toml`` or of a file (``*.toml``), checked by themselves. Raises ConfigError.

    A file may name a Flower app (``app = "PATH"``) and its own config (table ``app_config``): the config of such a run.
    """
    path = Path(recipe) if recipe.endswith(".toml") else RECIPES / f"{recipe}.toml"
    if not path.is_file():
        exists = "is there, but is no .toml file" if Path(recipe).exists() else ""
        near = exists or ("no such file" if recipe.endswith(".toml") else f"unknown{registry.nearest(recipe, names())}")
        raise ConfigError(f"recipe = {recipe!r}: {near}; choose one of {', '.join(names())} or the path of a .toml file")
    try:
        settings = nested(tomllib.loads(path.read_text(encoding="utf-8")))
        one_of(settings.get("local", {}))
        expand({k: v for k, v in settings.items() if k not in (("app", "app_config") if "app" in settings else ())}, plan=False)
    except ValueError as error:  # of TOML, of its encoding, or a ConfigError
        raise ConfigError(f"{path}: {error}") from error
    return settings


def one_of(local: Settings, given: bool = False) -> None:
    """Raise ConfigError where both local.epochs and local.steps are said (in a file, 0 steps say nothing)."""
    if given or ("epochs" in local and local.get("steps")):
        raise ConfigError(f"local.epochs = {local['epochs']}, local.steps = {local['steps']}: both at once; give one of them")


def overlay(base: Settings, over: Settings) -> Settings:
    """``base`` (a recipe) with ``over`` (flags) on top.

    Of local.epochs and local.steps, the one given on top rules. Where ``over`` renames a noun, the recipe's
    parameters go with the old name, except those that the new thing takes too.
    """
    local = over.get("local", {})
    if "epochs" in local and "steps" in local:
        one_of(local, given=True)
    merged = dict(base)
    for key, value in over.items():
        old = base.get(key, {})
        if key in PACKAGES and "name" in value and value["name"] != old.get("name"):
            takes = {k for name in names_in(key, value["name"]) for k in parameters(key, load(key, name))}
            old = {k: v for k, v in old.items() if k in takes}
        merged[key] = {**old, **value} if isinstance(value, dict) else value
    if "epochs" in local:
        merged["local"] = {**merged["local"], "steps": 0}
    return merged


def make(recipe: str | None = None, **settings: Any) -> Config:
    """One run from Python: ``make("quickstart", strategy="fedprox", local={"lr": 0.1}, **{"strategy.mu": 0.1})``.

    ``task``, ``partition``, ``model`` and ``strategy`` may be objects, functions or classes too. Raises ConfigError.
    """
    return single(configs(read(recipe) if recipe else {}, nested(settings)))


def over(recipe: Settings, said: Settings, axes: str) -> list[Config]:
    """The runs of ``configs`` at every combination of the values of ``KEY=A,B;KEY=C,D``; seeds innermost. Raises ConfigError.

    A key must be a number that runs of one batch can hold side by side: a float of ``local``, ``server`` or the strategy, or ``seed``.
    """
    if not axes:
        return configs(recipe, said)
    parsed = [_axis(part) for part in axes.split(";")]
    engine, plain = said.get("engine", recipe.get("engine", "auto")), configs(recipe, said)
    names = ", ".join(dict.fromkeys(config.strategy.name for config in plain))
    if engine not in ("auto", "vmap"):
        raise ConfigError(f"vmap_over = {axes!r}: needs engine vmap, but engine = {engine!r}; leave that out")
    if "," in names:
        raise ConfigError(f"strategy.name = {names}: runs of one batch (vmap_over) have one strategy; run them one after another")
    for key, values in parsed:
        _check_axis(key, values, axes, plain[0])
    batch: list[Config] = []
    for chosen in itertools.product(*(values for _, values in parsed)):
        point = dict(said)
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
        raise ConfigError(f"vmap_over = {text!r}: {key} needs numbers between commas, such as local.lr=.01,.03,.1") from None


def _check_axis(key: str, values: Sequence[Any], axes: str, config: Config) -> None:
    """Raise ConfigError for a setting that runs of one batch cannot differ in."""
    own = {k: p.hint for k, p in parameters("strategy", config.strategy.thing).items()}
    hints = {"local": get_type_hints(Local, include_extras=True), "server": get_type_hints(Server, include_extras=True), "strategy": own}
    known = [f"{table}.{k}" for table, types in hints.items() for k, hint in types.items() if _float(hint)]
    if key != "seed" and (key not in known or (key == "local.clip_norm" and 0 in values)):
        why = "= 0 means no clipping, another computation" if key in known else "changes what is computed, not a number in it"
        raise ConfigError(f"vmap_over = {axes!r}: {key} {why}; runs of one batch may differ in {', '.join(['seed', *known])}")


def _float(hint: Any) -> bool:
    return hint is float or (get_origin(hint) is Annotated and get_args(hint)[0] is float)


def configs(recipe: Settings, said: Settings) -> list[Config]:
    """The runs of a recipe with settings on top. What a strategy refuses is an error in the place that names the strategy."""
    return expand(overlay(recipe, said), said if "name" in said.get("strategy", {}) else None)
