"""One run's complete config: frozen dataclasses, filled from a recipe (TOML), flags or Python, and checked before any
work.

Explicit settings are sparse nested dicts (``nested``); ``expand`` turns them into complete configs.
"""

import inspect
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any, Literal, get_type_hints

import tomli_w

from experiments.config.choices import PACKAGES, Choice, choose
from experiments.config.nesting import Settings, nested, without
from experiments.config.tables import SECTIONS, Server, Stop, System
from experiments.config.values import (
    Count,
    Device,
    Failures,
    NotNegative,
    Seed,
    Share,
    Target,
    Whole,
    check,
    seeds,
    unknown_key,
)
from fl_sim.errors import ConfigError
from fl_sim.executors.ray.options import Ray
from fl_sim.learning.settings import Local

NATURAL = "natural"
"""The partition whose clients the task brings with it."""


@dataclass(frozen=True)
class Config:
    """One run. ``make`` and ``Config.from_dict`` check the configs that they build; the constructor does not."""

    task: Choice
    """What is learnt."""
    partition: Choice
    """Who owns which sample."""
    model: Choice
    """The network."""
    strategy: Choice
    """The algorithm, both halves."""
    data_dir: str | None = None
    """Folder of real data sets: DIR/<task>/{train,test}.parquet or torchvision's files.

    None: FL_SIM_DATA, or a download.
    """
    validation: Share = 0.0
    """Share of the training samples kept centrally for choices; 0: every sample trains."""
    clients: Whole = 0
    """How many clients there are; 0: 10, or as many as the task brings where the partition is natural."""
    holdout_clients: Whole = 0
    """How many of the clients never train; personal evaluation reports them apart."""
    cohort: Whole = 0
    """Clients a round; 0: all that train."""
    rounds: Count = 10
    """Communication rounds."""
    local: Local = field(default_factory=Local)
    """Training inside one client."""
    server: Server = field(default_factory=Server)
    """The server's step."""
    system: System = field(default_factory=System)
    """What devices do."""
    weighting: Literal["examples", "uniform"] | None = None
    """Weight of a client in the mean: its number of training samples, or 1. None: the strategy's own."""
    augment: bool = False
    """Random crops and flips of training images."""
    standardize: bool = False
    """Inputs minus the training mean, divided by the standard deviation; off: inputs in [0, 1]."""
    evaluate_every: Count = 1
    """Rounds between evaluations of the global model on the test set; the last round is evaluated too."""
    personalize_steps: Whole = 0
    """Fine-tuning steps of personal evaluation; 0: no personal evaluation."""
    personalize_lr: NotNegative = 0.0
    """Learning rate of personal evaluation; 0: local.lr."""
    personalize_batch_size: Whole = 0
    """Batch size of personal evaluation; 0: local.batch_size."""
    personalize_clients: Count = 100
    """The most clients that are evaluated personally, of those that train and of the others."""
    personalize_every: Whole = 0
    """Rounds between personal evaluations; 0: after the last one only."""
    target: Target = None
    """Accuracy (a fraction) that "rounds to target" in the tables refers to; stop.target is the one that ends a run."""
    engine: Literal["auto", "loop", "vmap", "ray", "flower"] = "auto"
    """How blocks run: one client after another (loop), as one batched model (vmap), one of these by a fixed rule
    (auto), on Ray's workers (ray); or not in blocks, through Flower's own simulation (flower).
    """
    ray: Ray = field(default_factory=Ray)
    """Ray's workers."""
    block_size: Whole = 0
    """The most clients a block. 0: by a fixed rule (experiments/runs/block_size.py) that gives workers equal shares."""
    chunk: Whole = 0
    """Clients of a block that vmap runs at once; 0: the whole block."""
    threads: Count = 1
    """CPU threads a block."""
    dtype: Literal["float32", "float64"] = "float32"
    """Floating-point type of models and inputs."""
    precision: Literal["full", "tf32", "bf16"] = "full"
    """Of float32 matrix products: full; on a GPU with factors rounded to TF32; or under autocast to bfloat16."""
    device: Device = "cpu"
    """Where blocks run: cpu, cuda or cuda:N."""
    seed: Seed = 0
    """Keys all draws but the partition's. Several runs: 0,1,2 or 0..4."""
    out: str = "runs"
    """Folder in which each run makes a folder of its own."""
    failures: Failures = "raise"
    """What a failing client does: raise fails the run; tolerate:0.2 drops up to that share of a round's clients."""
    checkpoint_every: Whole = 0
    """Rounds between checkpoints; one comes after the last round too. 0: as often as checkpoints take at most 2 % of
    the time.
    """
    checkpoint_keep: Whole = 2
    """How many checkpoints stay, of the last rounds; 0: all."""
    schedule_rounds: Whole = 0
    """The number of rounds that schedules (local.lr_schedule, strategy.anneal) end at; 0: rounds.

    A run that has it can be made longer.
    """
    stop: Stop = field(default_factory=Stop)
    """When a run ends early."""
    time_limit: NotNegative = 0.0
    """Seconds after which no further round begins, those before a resume included; 0: none."""
    fork: str = ""
    """RUN@N: begin at the checkpoint of round N of the run in folder RUN; RUN alone: at its last one."""

    @property
    def num_clients(self) -> int | None:
        """How many clients there are; None where only the task's data can tell."""
        if self.clients or self.partition.name != NATURAL:
            return self.clients or 10
        own = _signature(self.task.component).get("clients")
        return own.default if own is not None and isinstance(own.default, int) else None

    def to_dict(self) -> Settings:
        """All settings as plain nested dicts, without those that are None or that the strategy refuses."""
        plain: Settings = {}
        for f in fields(self):
            value = getattr(self, f.name)
            if isinstance(value, Choice):
                plain[f.name] = {"name": value.name, **value.params}
            else:
                plain[f.name] = vars(value) if f.name in SECTIONS else value
        if self.engine != "ray":
            del plain["ray"]
        return without(plain, [*refused_by([self.strategy]), *(["local.epochs"] if self.local.steps else [])])

    def to_toml(self) -> str:
        """The complete config as TOML: ``python -m experiments.run FILE`` repeats the run."""
        objects = [
            kind
            for kind in PACKAGES
            if getattr(self, kind).is_object or getattr(self, kind).name.startswith("__main__:")
        ]
        repeats = "complete: python -m experiments.run THIS_FILE repeats it"
        if objects:
            start = f"started from Python with objects ({', '.join(objects)}) that this file can only name"
            repeats = f"{start}: give them again to run(...)"
        title = f"# One run of {self.strategy.name}, {repeats}.\n"
        return title + tomli_w.dumps(self.to_dict())

    @classmethod
    def from_dict(cls, settings: Mapping[str, Any]) -> "Config":
        """The one run that nested settings describe; what they leave out has its default. Raises ConfigError."""
        return single(expand(nested(settings)))


def single(configs: Sequence[Config]) -> Config:
    """The only one. Raises ConfigError for several runs."""
    if len(configs) != 1:
        names, numbers = [c.strategy.name for c in configs], [c.seed for c in configs]
        raise ConfigError(
            f"strategy.name = {names}, seed = {numbers}: several runs where one is wanted; give one name and one seed"
        )
    return configs[0]


def expand(settings: Settings, explicit: Settings | None = None, plan: bool = True) -> list[Config]:
    """One complete config a run: strategies outer, seeds inner.

    Parameters
    ----------
    settings : Settings
        All settings; defaults fill the rest.
    explicit : Settings, optional
        Those that were set for just these strategies; default: all. A setting that each of the strategies refuses is
        an error where it is explicit, and dropped elsewhere.
    plan : bool (default: True)
        Whether to check that the numbers fit together.

    Raises ConfigError.
    """
    strategies = choose("strategy", {"name": "fedavg", **settings.get("strategy", {})})
    _check_refused(settings if explicit is None else explicit, strategies)
    [task] = choose("task", {"name": "digits", **settings.get("task", {})})
    own_clients = "clients" in _signature(task.component)
    [partition] = choose("partition", {"name": NATURAL if own_clients else "iid", **settings.get("partition", {})})
    [model] = choose("model", {"name": getattr(task.component, "default_model", "mlp"), **settings.get("model", {})})
    configs = []
    for strategy in strategies:
        rest = without(settings, refused_by([strategy]))
        own = _checked(Config, {k: v for k, v in rest.items() if k not in (*PACKAGES, "seed")})
        configs += [
            Config(task, partition, model, strategy, **own, seed=seed) for seed in seeds(settings.get("seed", 0))
        ]
    for config in configs if plan else ():
        _check_plan(config)
    return configs


def refused_by(strategies: Sequence[Choice]) -> list[str]:
    """The dotted keys that mean nothing to any of these strategies (their attribute ``refuses``)."""
    sets = [set(getattr(s.component, "refuses", ())) for s in strategies]
    return sorted(set.intersection(*sets))


def known_keys() -> list[str]:
    """All dotted keys of a config, but for the parameters of components."""
    keys = []
    for f in fields(Config):
        inner = ["name"] if f.name in PACKAGES else []
        if f.name in SECTIONS:
            inner = [part.name for part in fields(SECTIONS[f.name])]
        keys += [f"{f.name}.{name}" for name in inner] or [f.name]
    return keys


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


def _signature(component: Any) -> Mapping[str, inspect.Parameter]:
    is_maker = inspect.isroutine(component) or inspect.isclass(component)
    return inspect.signature(component).parameters if is_maker else {}


def _check_plan(c: Config) -> None:
    """Refuse numbers that cannot be met together."""
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
    if c.engine != "ray" and c.ray != Ray():
        key, value = next((k, v) for k, v in vars(c.ray).items() if v != getattr(Ray(), k))
        raise ConfigError(
            f"ray.{key} = {value!r}: means nothing with engine = {c.engine!r}; add --engine ray, or leave it out"
        )
    if c.personalize_steps > 0 and not c.partition.params.get("held_out"):
        why = "personal evaluation needs test samples of each client's own, but partition.held_out = 0"
        raise ConfigError(f"personalize_steps = {c.personalize_steps}: {why}; set --partition.held_out 0.2")
