"""The stored config of a run, also of an earlier version, as settings of today.

A call and a recipe are refused where they set what does nothing; the config of a run holds all settings, so that here
such keys are left out. A run's folder may come from a stranger: what its config names is called only where it is a
component, and not any function, such as ``shutil:rmtree``.
"""

import inspect
import sys
import sysconfig
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from experiments.config.choices import BY_RUN, PACKAGES, choose, load, parameters
from experiments.config.expand import expand, single
from experiments.config.nesting import Settings, nested, without
from experiments.config.plan_checks import idle
from experiments.config.schema import Config, refused_by
from fl_sim.dotted import flatten
from fl_sim.errors import ConfigError

OLD_DEFAULTS: dict[str, object] = {"standardize_on": "all", "stop.on": "test"}
"""By dotted key, the value that repeats a run whose stored config was written before the key existed."""
OLD_NUMBERS: dict[tuple[str, str], dict[str, object]] = {("strategy", "perfedavg"): {"hf_step": "fixed"}}
"""The same for parameters of one component, by its kind and name."""


def of_today(settings: Settings) -> Settings:
    """The settings of a stored config, with the values of ``OLD_DEFAULTS`` and ``OLD_NUMBERS`` for keys that it lacks.

    A setting that the run's strategy refuses today, or that does nothing, is left out; of maml's, ``local.lr`` was the
    rate of personal evaluation, and becomes ``personalize_lr``. Before ``personalize_optimizer`` existed, the numbers
    of clients that Flower's strategies had by default were stored, though the run decided them. Raises ConfigError
    where it names what is no component.
    """
    for kind in PACKAGES:
        name = settings.get(kind, {}).get("name")
        if isinstance(name, str) and ":" in name:
            check_component(kind, name)
    merged = dict(renamed(settings))
    if "app" in merged:
        return merged
    for key, value in nested(lacked_by(settings)).items():
        merged[key] = {**value, **merged.get(key, {})} if isinstance(value, dict) else value
    refused = refused_by(choose("strategy", {"name": "fedavg", **merged.get("strategy", {})}))
    rate = merged.get("local", {}).get("lr")
    if "local.lr" in refused and rate and merged.get("personalize_steps") and not merged.get("personalize_lr"):
        merged["personalize_lr"] = rate
    merged = without(merged, refused)
    if "personalize_optimizer" not in settings:
        table, [chosen] = (
            merged.get("strategy", {}),
            choose("strategy", {"name": "fedavg", **merged.get("strategy", {})}),
        )
        known = parameters("strategy", chosen.component)
        by_run = [k for k in BY_RUN if k in table and k in known and table[k] == known[k].default]
        merged = without(merged, [f"strategy.{k}" for k in by_run])
    return without(merged, list(idle(single(expand(merged, plan=False)))))


def lacked_by(settings: Mapping[str, Any]) -> dict[str, object]:
    """By dotted key, what ``OLD_DEFAULTS`` and ``OLD_NUMBERS`` say of the keys that a stored config lacks."""
    found = dict(OLD_DEFAULTS)
    for (kind, name), old in OLD_NUMBERS.items():
        if settings.get(kind, {}).get("name") == name:
            found |= {f"{kind}.{key}": value for key, value in old.items()}
    return {key: value for key, value in found.items() if key not in flatten(settings)}


def renamed(settings: Settings) -> Settings:
    """A stored config with today's names: before ``digest_every`` existed, ``labels`` was today's ``labels-equal``."""
    table = settings.get("partition", {})
    if not isinstance(table, dict) or table.get("name") != "labels" or "digest_every" in settings:
        return settings
    return {**settings, "partition": {**table, "name": "labels-equal"}}


def stored_config(settings: Mapping[str, object]) -> Config:
    """The config of a run, from what its folder or its checkpoints hold. Raises ConfigError."""
    return single(expand(of_today(nested(settings))))


def classes() -> dict[str, type]:
    """Kinds whose components may be classes, or functions that are annotated to return such an object."""
    from flwr.serverapp.strategy import Strategy  # imported here, because settings and their help are read without it
    from torch import nn

    from fl_sim.blocks.attack import Attack
    from fl_sim.wire.codec import Codec

    return {"strategy": Strategy, "model": nn.Module, "attack": Attack, "codec": Codec}


INSTALLED_IN = {"site-packages", "dist-packages"}
"""Names of folders of installed modules: an interpreter has several, such as a user's own and that of the system."""

OUR_PACKAGES = ("fl_sim", "strategies", "clients", "experiments")
"""This project's packages, whose components are marked."""


def check_component(kind: str, name: str) -> None:
    """Raise ConfigError where ``name`` (package.module:Name) in a stored config is no component of this kind.

    Components are functions marked ``@offer``, subclasses of Flower's Strategy and of torch's Module, functions that
    are annotated to return one, and any function of a module of the user's own, which is not installed. Nothing is
    called, and no module of Python's standard library is imported.
    """
    refused = ConfigError(
        f"{kind}.name = {name!r} in the stored config: is no {kind}, and calling it could do anything; a {kind} is a "
        f"function marked @offer({kind!r}), or one of a module of yours. Do not use a folder that you do not trust"
    )
    if name.partition(".")[0].partition(":")[0] in sys.stdlib_module_names and not name.startswith("__main__:"):
        raise refused
    component: Any = load(kind, name)
    if getattr(component, "kind", None) == kind:
        return
    wanted = classes().get(kind)
    if inspect.isclass(component):
        good = wanted is not None and issubclass(component, wanted)
    else:
        returned = getattr(component, "__annotations__", {}).get("return")
        good = wanted is not None and inspect.isclass(returned) and issubclass(returned, wanted)
        good = inspect.isroutine(component) and (good or _is_own(component))
    if not good:
        raise refused


def _is_own(function: Any) -> bool:
    """Whether a function was defined in a module that is neither installed, nor this project's, nor Python's own."""
    module = sys.modules.get(getattr(function, "__module__", None) or "")
    file = getattr(module, "__file__", None)
    if module is None or not file:
        return False
    if module.__name__.partition(".")[0] in {*sys.stdlib_module_names, *OUR_PACKAGES} - {"__main__"}:
        return False
    at = Path(file).resolve()
    if INSTALLED_IN & set(at.parts):
        return False
    installed = [Path(sysconfig.get_path(name)).resolve() for name in ("purelib", "platlib", "stdlib", "platstdlib")]
    return not any(at.is_relative_to(folder) for folder in installed)
