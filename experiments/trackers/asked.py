"""``--track tensorboard,mlflow,wandb`` and ``--callback module:Class``: the callbacks that a call asks for by name.

None of their modules is imported unless a call asks for it.
"""

import importlib
import importlib.util
from typing import Any

from experiments.trackers.tracked import Tracked
from fl_sim import Callback, registry
from fl_sim.errors import ConfigError

TRACKERS = ("tensorboard", "mlflow", "wandb")
"""Their names: of a file here each, and of the extra that installs what it needs."""


def asked(track: str, callback: str) -> list[Callback]:
    """New callbacks, for one run. Raises ConfigError for what is unknown, not installed, or no callback."""
    return [*map(tracker, names("track", track)), *map(own, names("callback", callback))]


def names(key: str, text: str) -> list[str]:
    """The names between commas. Raises ConfigError for one that is empty or named twice."""
    found = [part.strip() for part in text.split(",")] if text else []
    if not all(found) or len(set(found)) < len(found):
        raise ConfigError(f"{key} = {text!r}: names one twice, or none between two commas; give each once")
    return found


def tracker(name: str) -> Callback:
    """The callback of a tracker. Raises ConfigError where there is none of this name, or it is not installed."""
    if name not in TRACKERS:
        near = registry.nearest(name, list(TRACKERS))
        raise ConfigError(f"track = {name!r}: unknown{near}; choose of {', '.join(TRACKERS)}")
    module: Any = importlib.import_module(f"experiments.trackers.{name}")
    if missing := [package for package in module.PACKAGES if importlib.util.find_spec(package) is None]:
        cure = f"pip install 'fl-sim[{name}]', or leave it out"
        raise ConfigError(f"track = {name!r}: {', '.join(missing)} is not installed; {cure}")
    return Tracked(name, module.start)


def own(name: str) -> Callback:
    """A callback of the user's, ``module:Class``, made without arguments. Raises ConfigError where it is none."""
    if ":" not in name:
        raise ConfigError(f"callback = {name!r}: must be module:Class, where Class is a subclass of fl_sim.Callback")
    try:
        made: object = registry.find("experiments.trackers", "callback", name)()
    except (Exception, SystemExit) as error:
        raise ConfigError(f"callback = {name!r}: cannot be made: {type(error).__name__}: {error}") from error
    if not isinstance(made, Callback):
        raise ConfigError(f"callback = {name!r}: makes a {type(made).__name__}; it must make an fl_sim.Callback")
    return made
