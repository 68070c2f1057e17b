"""The stored config of a run, also of an earlier version, as settings of today.

A call and a recipe are refused where they set what does nothing; the config of a run holds all settings, so that here
such keys are left out.
"""

from collections.abc import Mapping

from experiments.config.choices import choose
from experiments.config.expand import expand, single
from experiments.config.nesting import Settings, nested, without
from experiments.config.schema import Config, refused_by
from fl_sim.dotted import flatten

OLD_DEFAULTS: dict[str, object] = {}
"""By dotted key, the value that repeats a run whose stored config was written before the key existed."""


def of_today(settings: Settings) -> Settings:
    """The settings of a stored config, with ``OLD_DEFAULTS`` for keys that did not exist when it was written.

    A setting that the run's strategy refuses today is left out; of maml's, ``local.lr`` was the rate of personal
    evaluation, and becomes ``personalize_lr``.
    """
    lacking = {key: value for key, value in OLD_DEFAULTS.items() if key not in flatten(settings)}
    merged = dict(settings)
    for key, value in nested(lacking).items():
        merged[key] = {**value, **merged.get(key, {})} if isinstance(value, dict) else value
    if "app" in merged:
        return merged
    refused = refused_by(choose("strategy", {"name": "fedavg", **merged.get("strategy", {})}))
    rate = merged.get("local", {}).get("lr")
    if "local.lr" in refused and rate and merged.get("personalize_steps") and not merged.get("personalize_lr"):
        merged["personalize_lr"] = rate
    return without(merged, refused)


def stored_config(settings: Mapping[str, object]) -> Config:
    """The config of a run, from what its folder or its checkpoints hold. Raises ConfigError."""
    return single(expand(of_today(nested(settings))))
