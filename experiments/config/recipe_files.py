"""Recipes: TOML files of settings, and the flags or keywords that override them.

A flag, or a keyword from Python, overrides the recipe; the recipe overrides the defaults of the dataclasses.
"""

import itertools
import re
import tomllib
from pathlib import Path

from experiments.apps.stored_apps import KEYS
from experiments.config.choices import PACKAGES, label, load, parameters
from experiments.config.expand import expand, single
from experiments.config.nesting import Settings, nested
from experiments.config.plan_checks import idle, values, without_idle
from experiments.config.schema import Config
from experiments.config.stored import of_today
from experiments.config.strategy_tables import general, kept_of, names_in
from experiments.config.values import has_several_seeds
from fl_sim import registry
from fl_sim.dotted import flatten
from fl_sim.errors import ConfigError
from fl_sim.logs.columns import A_RUN, CONFIG
from fl_sim.logs.toml import read_toml

RECIPES = Path(__file__).parents[1] / "recipes"
"""Folder of the recipes that come with this project."""


def names() -> list[str]:
    """Names of the recipes that come with this project."""
    return sorted(path.stem for path in RECIPES.glob("*.toml"))


def title(recipe: str) -> str:
    """A recipe's description: the first sentence of the comment that it begins with."""
    lines = (RECIPES / f"{recipe}.toml").read_text(encoding="utf-8").splitlines()
    comment = "\n".join(line.lstrip("# ").rstrip() for line in itertools.takewhile(lambda line: line[:1] == "#", lines))
    return re.split(r"(?<!al)\.(?= [A-Z]|\n|$)", comment)[0].replace("\n", " ") + "."


def read(recipe: str) -> Settings:
    """The settings of ``experiments/recipes/RECIPE.toml``, or of the file RECIPE if it ends with ``.toml``.

    They are checked without the flags. The stored config of an app's run names a Flower app (``app = "PATH"``) and
    holds the app's own config (table ``app_config``) and the HMAC of both. Raises ConfigError.
    """
    path = Path(recipe) if recipe.endswith(".toml") else RECIPES / f"{recipe}.toml"
    if not path.is_file():
        exists = "is there, but is no .toml file" if Path(recipe).exists() else ""
        near = exists or ("no such file" if recipe.endswith(".toml") else f"unknown{registry.nearest(recipe, names())}")
        raise ConfigError(
            f"recipe = {recipe!r}: {near}; choose one of {', '.join(names())} or the path of a .toml file"
        )
    try:
        settings = nested(read_toml(path))
        settings = of_today(settings) if is_stored(path) else settings
        one_of(settings.get("local", {}))
        of_an_app = KEYS if "app" in settings else ()
        expand({k: v for k, v in settings.items() if k not in of_an_app}, plan=False)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{path}: is no TOML: {error}; a line is KEY = VALUE, with text in quotes") from error
    except ValueError as error:  # of its encoding, or a ConfigError
        raise ConfigError(f"{path}: {error}") from error
    return settings


def is_stored(path: Path) -> bool:
    """Whether a file is the stored config of a run; any other is a recipe."""
    return path.name == CONFIG and (path.parent / "rounds.jsonl").is_file()


def one_of(local: Settings, both: bool = False) -> None:
    """Raise ConfigError where both local.epochs and local.steps are set (in a file, 0 steps count as not set).

    ``both`` : the caller knows that both are set.
    """
    if both or ("epochs" in local and local.get("steps")):
        raise ConfigError(
            f"local.epochs = {local['epochs']}, local.steps = {local['steps']}: both at once; give one of them"
        )


def overlay(base: Settings, over: Settings) -> Settings:
    """``base`` (a recipe) with ``over`` (flags) on top.

    Of local.epochs and local.steps, the one in ``over`` is used. Where ``over`` names another component than the recipe
    (such as another strategy), the recipe's parameters are dropped, except those that the new component takes too.
    """
    local = over.get("local", {})
    if "epochs" in local and "steps" in local:
        one_of(local, both=True)
    merged = dict(base)
    for key, value in over.items():
        old = base.get(key, {})
        if key in PACKAGES:
            old = _kept(key, old, value)
        merged[key] = {**old, **value} if isinstance(value, dict) else value
    if "epochs" in local:
        merged["local"] = {**merged["local"], "steps": 0}
    return merged


def _kept(kind: str, old: Settings, over: Settings) -> Settings:
    """What stays of a recipe's table of one kind of component under that of the flags."""
    another = "name" in over and over["name"] != old.get("name")
    if not another and not any("." in key for key in (*old, *over)):
        return old
    names = names_in(kind, {"name": "fedavg", **old, **over}["name"])
    takes = {n if isinstance(n, str) else label(kind, n): parameters(kind, load(kind, n), n) for n in names}
    if another:
        known = {key for own in takes.values() for key in own}
        old = {key: value for key, value in old.items() if key in known or "." in key}
    return kept_of(old, over, takes)


def make(recipe: str | None = None, **settings: object) -> Config:
    """One run from Python: ``make("quickstart", strategy="fedprox", local={"lr": 0.1}, **{"strategy.mu": 0.1})``.

    ``task``, ``partition``, ``model`` and ``strategy`` may be objects, functions or classes too. Raises ConfigError.
    """
    return single(configs(read(recipe) if recipe else {}, nested(settings)))


def make_each(recipe: str | None = None, **settings: object) -> list[Config]:
    """One run from Python for each seed of ``seed=[0, 1, 2]``; otherwise as ``make``. Raises ConfigError."""
    if not has_several_seeds(settings.get("seed", 0)):
        return [make(recipe, **settings)]
    found = configs(read(recipe) if recipe else {}, nested(settings))
    single(list({config.strategy.name: config for config in found}.values()))
    return found


def configs(recipe: Settings, over: Settings) -> list[Config]:
    """The runs of a recipe with explicit settings on top.

    A setting that the strategy refuses, or that does nothing in any of the runs, is an error, except where ``over``
    makes it so and the setting is the recipe's: then the setting is dropped.
    """
    found = expand(overlay(recipe, over), over if "name" in over.get("strategy", {}) else None)
    nothing = [idle(config) for config in found]
    common = {key: why for key, why in nothing[0].items() if all(key in other for other in nothing)}
    alone = [idle(config) for config in expand(recipe, plan=False)] if common and recipe else []
    said, chosen = {general(key) for key in flatten(over)}, found[0].strategy
    said |= {f"strategy.{key}" for key in chosen.given} if chosen.is_object else set()
    for key, why in common.items():
        if key in said or (alone and all(key in other for other in alone)):
            raise ConfigError(f"{key} = {values(found[0])[key]!r}: does nothing here: {why}; leave it out")
    return [without_idle(config, keys) if keys else config for config, keys in zip(found, nothing, strict=True)]


def read_folder(key: str, name: str) -> str:
    """The config file of the run folder that ``--resume`` or ``--fork`` names. Raises ConfigError."""
    folder = Path(name)
    if not (folder / CONFIG).is_file():
        beside = sorted(p.parent.name for p in folder.parent.glob(f"*/{CONFIG}")) if folder.parent.is_dir() else []
        raise ConfigError(
            f"{key} = {name!r}: no run folder (it holds no {CONFIG}){registry.nearest(folder.name, beside)}; {A_RUN}"
        )
    return str(folder / CONFIG)


def fork_parts(fork: str) -> tuple[str, str | None]:
    """(the run folder, the text of the round or None) of ``RUN@N`` or ``RUN``; the path of RUN may hold ``@`` too."""
    name, at, text = fork.rpartition("@")
    if not at or (Path(fork).is_dir() and not (Path(name) / CONFIG).is_file()):
        return fork, None
    return name, text
