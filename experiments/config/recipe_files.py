"""Recipes: TOML files of settings, and what is laid over them.

A flag, or a keyword from Python, overrides the recipe; the recipe overrides the defaults of the dataclasses.
"""

import tomllib
from pathlib import Path
from typing import Any

from experiments.config.choices import PACKAGES, load, names_in, parameters
from experiments.config.schema import Config, Settings, expand, nested, single
from fl_sim import registry
from fl_sim.errors import ConfigError
from fl_sim.logs.columns import CONFIG

RECIPES = Path(__file__).parents[1] / "recipes"


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
        raise ConfigError(
            f"recipe = {recipe!r}: {near}; choose one of {', '.join(names())} or the path of a .toml file"
        )
    try:
        settings = nested(tomllib.loads(path.read_text(encoding="utf-8")))
        one_of(settings.get("local", {}))
        expand(
            {k: v for k, v in settings.items() if k not in (("app", "app_config") if "app" in settings else ())},
            plan=False,
        )
    except ValueError as error:  # of TOML, of its encoding, or a ConfigError
        raise ConfigError(f"{path}: {error}") from error
    return settings


def one_of(local: Settings, given: bool = False) -> None:
    """Raise ConfigError where both local.epochs and local.steps are said (in a file, 0 steps say nothing)."""
    if given or ("epochs" in local and local.get("steps")):
        raise ConfigError(
            f"local.epochs = {local['epochs']}, local.steps = {local['steps']}: both at once; give one of them"
        )


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


def configs(recipe: Settings, said: Settings) -> list[Config]:
    """The runs of a recipe with settings on top. What a strategy refuses is an error in the place that names the strategy."""
    return expand(overlay(recipe, said), said if "name" in said.get("strategy", {}) else None)


def read_folder(key: str, name: str) -> str:
    """The config file of the run folder that ``--resume`` or ``--fork`` names. Raises ConfigError."""
    folder = Path(name)
    if not (folder / CONFIG).is_file():
        beside = sorted(p.parent.name for p in folder.parent.glob(f"*/{CONFIG}")) if folder.parent.is_dir() else []
        raise ConfigError(
            f"{key} = {name!r}: no run folder (it holds no {CONFIG}){registry.nearest(folder.name, beside)}"
        )
    return str(folder / CONFIG)
