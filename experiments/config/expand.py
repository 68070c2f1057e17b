"""From nested settings to complete, checked configs: one for each run."""

from collections.abc import Sequence
from typing import Any, get_type_hints

from experiments.config.asynchronous.asynchronous_settings import defaults
from experiments.config.choices import PACKAGES, Choice, choose, parameters
from experiments.config.nesting import Settings, without
from experiments.config.plan_checks import check_plan
from experiments.config.schema import HONEST, NATURAL, Config, known_keys, refused_by, signature
from experiments.config.strategy_tables import check_reached
from experiments.config.tables import SECTIONS
from experiments.config.values import NotNegative, check, seeds, unknown_key
from fl_sim.errors import ConfigError
from fl_sim.learning.settings import Local
from strategies.codecs import NO_CODEC


def single(configs: Sequence[Config]) -> Config:
    """The only config in the list. Raises ConfigError for several runs."""
    if len(configs) != 1:
        names, numbers = [c.strategy.name for c in configs], [c.seed for c in configs]
        raise ConfigError(
            f"strategy.name = {names}, seed = {numbers}: several runs where one is wanted; give one name and one seed"
        )
    return configs[0]


def expand(settings: Settings, explicit: Settings | None = None, plan: bool = True) -> list[Config]:
    """The complete config of each run: all seeds of the first strategy, then those of the next.

    Parameters
    ----------
    settings : Settings
        All settings; defaults fill the rest.
    explicit : Settings, optional
        The settings that the user chose together with these strategies; default: all. A setting that each of the
        strategies refuses is an error where it is explicit, and dropped elsewhere.
    plan : bool (default: True)
        Whether to check that the numbers do not contradict each other.

    Raises
    ------
    ConfigError
        For a setting that is unknown, out of range or refused, and for numbers that contradict each other.
    """
    strategies = choose("strategy", {"name": "fedavg", **settings.get("strategy", {})})
    chosen = settings if explicit is None else explicit
    check_reached(chosen.get("strategy", {}), {c.name: parameters("strategy", c.component) for c in strategies})
    _check_refused(chosen, strategies)
    [task] = choose("task", {"name": "digits", **settings.get("task", {})})
    own_clients = "clients" in signature(task.component)
    [partition] = choose("partition", {"name": NATURAL if own_clients else "iid", **settings.get("partition", {})})
    [model] = choose("model", {"name": getattr(task.component, "default_model", "mlp"), **settings.get("model", {})})
    [attack] = choose("attack", {"name": HONEST, **settings.get("attack", {})})
    [codec] = choose("codec", {"name": NO_CODEC, **settings.get("codec", {})})
    [profile] = choose("profile", {"name": "equal", **settings.get("profile", {})})
    configs = []
    for strategy in strategies:
        rest = without(settings, refused_by([strategy]))
        own = _checked(Config, {k: v for k, v in rest.items() if k not in (*PACKAGES, "seed")})
        own |= defaults(strategy, settings)
        own |= _personal_rate(settings, strategy)
        configs += [
            Config(task, partition, model, strategy, profile, attack, codec, **own, seed=seed)
            for seed in seeds(settings.get("seed", 0))
        ]
    for config in configs if plan else ():
        check_plan(config)
    return configs


def _personal_rate(settings: Settings, strategy: Choice) -> Settings:
    """The rate of personal evaluation for a strategy that has no ``local.lr``, by which it would be that rate."""
    if "local.lr" not in refused_by([strategy]) or not settings.get("personalize_steps"):
        return {}
    rate = settings.get("personalize_lr") or settings.get("local", {}).get("lr", Local().lr)
    if not rate:
        why = f"{strategy.name} has no local.lr, and personal evaluation at rate 0 evaluates the global model twice"
        raise ConfigError(f"personalize_lr = {rate!r}: {why}; give a rate, or leave out personalize_steps")
    return {"personalize_lr": check("personalize_lr", NotNegative, rate)}


def _checked(cls: Any, settings: Settings, prefix: str = "") -> Settings:
    hints, result = get_type_hints(cls, include_extras=True), {}
    for key, value in settings.items():
        if key not in hints:
            raise unknown_key(prefix + key, value, known_keys())
        if prefix + key in SECTIONS:
            result[key] = SECTIONS[key](**_checked(SECTIONS[key], value, f"{key}."))
        else:
            result[key] = check(prefix + key, hints[key], value)
    return result


def _check_refused(explicit: Settings, strategies: Sequence[Choice]) -> None:
    for key in refused_by(strategies):
        table, _, name = key.rpartition(".")
        part = explicit.get(table, {}) if table else explicit
        if name in part:
            who = " and ".join(dict.fromkeys(s.name for s in strategies))
            raise ConfigError(f"{key} = {part[name]!r}: means nothing to {who}; leave it out")
