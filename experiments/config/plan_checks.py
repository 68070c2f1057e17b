"""Checks of a complete config: numbers that contradict each other, and settings that would do nothing."""

import inspect
import math
import re
from collections.abc import Mapping
from dataclasses import fields, is_dataclass, replace
from typing import TYPE_CHECKING, Any

from experiments.config.asynchronous.asynchronous_settings import check_asynchronous, idle_in_rounds
from experiments.config.choices import PACKAGES, Choice, offered, parameters
from experiments.config.schema import HONEST, Config, refused_by, signature
from experiments.config.tables import SECTIONS
from fl_sim.dotted import flatten
from fl_sim.errors import ConfigError

if TYPE_CHECKING:
    from strategies.base.strategy import Strategy

PERSONAL = [f"personalize_{name}" for name in ("lr", "optimizer", "queries", "batch_size", "clients", "every")]
"""Settings of personal evaluation, besides ``personalize_steps``."""
NO_ATTACK = "malicious clients are simulated by this project's engines, not on devices or nodes of Flower's"
"""Why an attack is refused."""
NO_DRIFT = (
    "clients' updates are added up where this project's engines train blocks, not on devices or nodes of Flower's"
)
"""Why ``log_drift`` is refused."""
STORED_ONLY = ("eta_l",)
"""Parameters that Flower's strategies store and never read."""


def check_plan(c: Config) -> None:
    """Raise ConfigError for numbers that contradict each other."""
    total = math.inf if c.num_clients is None else c.num_clients
    if c.holdout_clients >= total:
        cure = f"of {total} clients at least one must train; choose at most {total - 1}"
        raise ConfigError(f"holdout_clients = {c.holdout_clients}: {cure}")
    check_validation_clients(c, total)
    if c.cohort > total - c.never_train:
        besides = f", validation_clients {c.validation_clients}" if c.validation_clients else ""
        counts = f"(clients {total}, holdout_clients {c.holdout_clients}{besides})"
        rest = f"only {total - c.never_train} clients train {counts}"
        raise ConfigError(f"cohort = {c.cohort}: {rest}; choose at most that, or 0 for all")
    for key, wrong in strategy.wrong_values.items() if (strategy := made(c)) is not None else ():
        if (value := values(c)[key]) in wrong:
            raise ConfigError(f"{key} = {value!r}: {wrong[value]}; leave it out")
    if c.client_timeout and (c.engine == "flower" or (c.engine != "ray" and c.device != "cpu")):
        why = "Flower's simulation has" if c.engine == "flower" else f"device = {c.device!r} has, in this process,"
        cure = "leave it out, or use --engine ray" if c.engine != "flower" else "leave it out"
        raise ConfigError(f"client_timeout = {c.client_timeout:g}: {why} no way to end one client; {cure}")
    check_epochs_of(c, total)
    c.silo.check(c.ray.engine if c.engine == "ray" else c.engine, 0.0 if c.engine == "ray" else c.client_timeout)
    if strategy is not None and strategy.needs_validation and not (c.validation or c.validation_clients):
        what = f"strategy {c.strategy.name} chooses by the loss on central validation samples, and there are none"
        raise ConfigError(f"validation = {c.validation:g}: {what}; give a share (--validation 0.1)")
    check_attack(c, total)
    check_asynchronous(c, total - c.never_train, strategy)
    if c.stop.rule and c.stop.on == "validation" and not (c.validation or c.validation_clients):
        raise no_validation(c.stop.rule, c.validation)
    if c.keep_best and not (c.validation or c.validation_clients):
        why = "chooses a model by the central validation samples, and validation = 0 keeps none"
        raise ConfigError(f"keep_best = true: {why}; give a share (--validation 0.1)")
    if c.log_drift and c.engine == "flower":
        raise ConfigError(f"log_drift = true: {NO_DRIFT}; leave it out, or use another engine")
    check_held_out(c)


def check_validation_clients(c: Config, total: float) -> None:
    """Raise ConfigError for validation clients that leave none to train, or that nothing evaluates when it matters."""
    count, held = c.validation_clients, c.holdout_clients
    if not count:
        return
    if count + held >= total:
        what = f"with holdout_clients = {held} these are all {total} clients or more, and one must train"
        raise ConfigError(f"validation_clients = {count}: {what}; choose at most {total - held - 1}")
    own = signature(c.task.component)
    if "holdout_clients" in own and "validation_clients" not in own:
        why = f"task {c.task.name} makes the samples of clients that never train apart, and knows unseen ones only"
        raise ConfigError(f"validation_clients = {count}: {why}; leave it out")
    if not c.personalize_steps:
        why = "personal evaluation reads them, and it is off (personalize_steps = 0)"
        raise ConfigError(f"validation_clients = {count}: {why}; set --personalize_steps too, or leave it out")
    rule = c.stop.rule if c.stop.on == "validation" else ""
    if (reads := rule or ("keep_best = true" if c.keep_best else "")) and not c.personalize_every:
        what = f"with validation_clients = {count} reads val_unseen_accuracy, known after the last round only"
        raise ConfigError(f"{reads}: {what} (personalize_every = 0); set --personalize_every 1")


def check_epochs_of(c: Config, clients: float) -> None:
    """Raise ConfigError for ``local.epochs_of`` that is no list of epochs, has too many, or meets stragglers."""
    text = c.local.epochs_of
    if not text:
        return
    if not re.fullmatch(r"0*[1-9]\d{0,5}(,0*[1-9]\d{0,5})*", text, re.ASCII):
        cure = "give whole numbers from 1 on, as 1,1,5, which the clients take in turn"
        raise ConfigError(f"local.epochs_of = {text!r}: must be the epochs of single clients; {cure}")
    if (count := text.count(",") + 1) > clients:
        raise ConfigError(f"local.epochs_of = {text!r}: {count} numbers for {clients} clients; give at most {clients}")
    if c.system.stragglers:
        why = "a straggler's share of the work is counted in epochs that all clients share"
        raise ConfigError(f"local.epochs_of = {text!r}, system.stragglers = {c.system.stragglers:g}: {why}; give one")


def check_attack(c: Config, clients: float) -> None:
    """Raise ConfigError for a share of malicious clients without an attack, or an attack without malicious clients."""
    name, share = c.attack.name, c.attack.params.get("share", 0.0)
    if name == HONEST:
        if share:
            raise ConfigError(f"attack.share = {share:g}: no attack is named; give one, such as --attack sign-flip")
        return
    if not share:
        cure = "give the share of malicious clients, such as --attack.share 0.2"
        raise ConfigError(f"attack.share = {share:g}: attack {name} acts on no client; {cure}")
    if c.engine == "flower":
        raise ConfigError(f"attack.name = {name!r}: {NO_ATTACK}; leave it out, or use another engine")
    count = c.cohort or clients - c.never_train
    if not math.isinf(count) and not round(share * count):
        cure = f"give at least {0.5 / count + 0.005:.2f}, or a larger cohort"
        raise ConfigError(f"attack.share = {share:g}: is none of a round's {count} clients, rounded; {cure}")


def check_held_out(c: Config) -> None:
    """Raise ConfigError for held-out samples that personal evaluation lacks, or that nothing would use."""
    unseen = c.partition.params.get("unseen_held_out")
    if unseen is not None and not (c.never_train and c.personalize_steps):
        key, what = ("personalize_steps", "is off") if c.never_train else ("holdout_clients", "has none")
        why = f"acts on clients that never train, in personal evaluation, and this run {what} ({key} = 0)"
        raise ConfigError(f"partition.unseen_held_out = {unseen}: {why}; set --{key} too, or leave it out")
    if c.personalize_steps > 0 and not (c.partition.params.get("held_out") or unseen):
        why = "personal evaluation needs test samples of each client's own, but partition.held_out = 0"
        raise ConfigError(f"personalize_steps = {c.personalize_steps}: {why}; set --partition.held_out 0.2")


def no_validation(rule: str, share: float) -> ConfigError:
    """The error for a rule that ends a run by the validation share, and there is none."""
    cure = "give a share (--validation 0.1), or let test data choose the last round (--stop.on test)"
    return ConfigError(f"{rule}: reads the central validation samples, and validation = {share:g} keeps none; {cure}")


def idle(c: Config) -> dict[str, str]:
    """The settings that have another value than their default and do nothing in this run, and why, by dotted key."""
    found: dict[str, str] = dict(idle_in_rounds(c))
    if not c.personalize_steps:
        found |= dict.fromkeys(PERSONAL, "acts in personal evaluation; set personalize_steps too")
    if not c.stop.rule:
        found["stop.on"] = "says what stop.target and stop.patience read; set one of them too"
    if not (c.profile.params["vanish"] or c.profile.params["on"]):
        if c.profile.name == "equal":
            what = "all devices are equal, and nothing of them is drawn"
            found |= dict.fromkeys(("profile.seed", "profile.per"), what)
        elif getattr(c.profile.component, "recorded", False) and c.profile.params["per"] == "client":
            found["profile.seed"] = "devices are recorded, and nothing of them is drawn"
    if not c.standardize:
        found["standardize_on"] = "acts in standardize; set standardize = true too"
    if c.engine in ("loop", "flower") or (c.engine == "ray" and c.ray.engine == "loop"):
        found["chunk"] = "acts in the engine vmap, and this run is on the loop"
    if c.engine != "ray":
        found |= {f"ray.{name}": f"the engine is {c.engine}; add --engine ray" for name in vars(c.ray)}
    found |= c.silo.idle
    if c.local.steps:
        found["local.epochs_of"] = f"local.steps = {c.local.steps} counts steps; set local.steps 0 too"
    elif c.local.epochs_of:
        found["local.epochs"] = "local.epochs_of gives each client its own"
    if c.local.optimizer != "sgd":
        found["local.momentum"] = f"local.optimizer is {c.local.optimizer}"
    if c.dtype != "float32" or (c.precision == "tf32" and c.device == "cpu"):
        found["precision"] = f"device is {c.device}, dtype is {c.dtype}"
    if "data_dir" not in signature(c.task.component) and not takes_anything(c.task.component):
        found["data_dir"] = f"task {c.task.name} reads no folder"
    if not c.local.batch_size and not (c.personalize_steps and c.personalize_batch_size):
        found["local.last_batch"] = "local.batch_size = 0 makes one batch of all samples"
    if not may_count_rounds(c):
        found["schedule_rounds"] = "nothing in this run depends on the number of rounds"
    defaults, now = default_values(c), values(c)
    found |= {f"strategy.{name}": why for name, why in idle_parameters(c).items()}
    return {key: why for key, why in found.items() if key in now and now[key] != defaults.get(key)}


def scheduled(c: Config) -> str:
    """The setting by which a round's result depends on the number of rounds; empty where there is none."""
    if c.local.lr_schedule != "constant" and "local.lr_schedule" not in refused_by([c.strategy]):
        return "local.lr_schedule"
    strategy = made(c)
    return strategy.scheduled if strategy is not None else ""


def may_count_rounds(c: Config) -> bool:
    """Whether the number of rounds may matter; a user's own strategy may read it, whatever it says."""
    component = c.strategy.component
    cls = type(component) if c.strategy.is_object else component
    shipped = cls in offered("strategy").values() or is_flowers(cls)
    return bool(scheduled(c)) or not shipped


def made(c: Config) -> "Strategy | None":
    """The strategy, where it is of this project's base class and can be made."""
    from strategies.base.strategy import Strategy  # imported here, because it imports torch and Flower

    component = c.strategy.component
    if isinstance(component, Strategy):
        return component
    if not (inspect.isclass(component) and issubclass(component, Strategy)):
        return None
    try:
        return component(**c.strategy.params)
    except Exception:  # the run reports it, when it is built
        return None


def is_flowers(component: object) -> bool:
    """Whether a component comes with Flower."""
    return str(getattr(component, "__module__", "")).startswith("flwr.")


def idle_parameters(c: Config) -> Mapping[str, str]:
    """The strategy's parameters that do nothing beside its other settings, and why."""
    strategy, found = made(c), dict[str, str]()
    if strategy is not None:
        return strategy.idle_parameters
    if is_flowers(c.strategy.component) and not c.strategy.is_object:
        found |= dict.fromkeys(STORED_ONLY, "Flower only stores it; the rate of clients is local.lr")
    return found


def takes_anything(component: Any) -> bool:
    """Whether a component takes any keyword."""
    return any(p.kind is inspect.Parameter.VAR_KEYWORD for p in signature(component).values())


def values(c: Config) -> dict[str, object]:
    """All settings by dotted key, those of components without their names."""
    tables = {f.name: getattr(c, f.name) for f in fields(Config)}
    plain = {name: vars(value) if name in SECTIONS else value for name, value in tables.items()}
    return flatten({**plain, **{kind: dict(plain[kind].params) for kind in PACKAGES}})


def default_values(c: Config) -> dict[str, object]:
    """The defaults of ``values``: those of the schema, of components' parameters, and of an object's fields."""
    own = dict[str, object]()
    for kind in PACKAGES:
        choice: Choice = getattr(c, kind)
        if choice.is_object and is_dataclass(choice.component):
            own |= {f"{kind}.{f.name}": f.default for f in fields(choice.component) if f.name in choice.params}
        own |= {f"{kind}.{k}": p.default for k, p in parameters(kind, choice.component).items()}
    rest = values(Config(c.task, c.partition, c.model, c.strategy, c.profile, c.attack, c.codec))
    return {**rest, **own}


def without_idle(c: Config, keys: Mapping[str, str]) -> Config:
    """The config with the defaults of these settings."""
    defaults, params, plain = default_values(c), dict(c.strategy.params), dict[str, Any]()
    for key in keys:
        table, _, name = key.rpartition(".")
        if table == "strategy":
            params[name] = defaults[key]
        elif table:
            plain[table] = replace(plain.get(table, getattr(c, table)), **{name: defaults[key]})
        else:
            plain[name] = defaults[key]
    return replace(c, **plain, strategy=replace(c.strategy, params=params))


def check_idle(c: Config) -> None:
    """Raise ConfigError for a setting that does nothing."""
    for key, why in idle(c).items():
        raise ConfigError(f"{key} = {values(c)[key]!r}: does nothing here: {why}; leave it out")
