"""One run's complete config: frozen dataclasses, filled from a recipe (TOML), flags or Python, and checked before any work.

Settings travel as sparse nested dicts of what was said (``nested``); ``expand`` turns them into complete configs.
"""

import inspect
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any, Literal, get_type_hints

import tomli_w

from experiments.config.choices import PACKAGES, Choice, choose
from experiments.config.tables import Server, Stop, System
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

Settings = dict[str, Any]
"""What was said, and only that: ``{"rounds": 5, "local": {"lr": 0.1}, "strategy": {"name": "fedprox", "mu": 0.1}}``."""


@dataclass(frozen=True)
class Config:
    """One run. ``make`` and ``Config.from_dict`` check what they build; the constructor does not."""

    task: Choice
    """What is learnt."""
    partition: Choice
    """Who owns which sample."""
    model: Choice
    """The network."""
    strategy: Choice
    """The algorithm, both halves."""
    data_dir: str | None = None
    """Folder of real data sets: DIR/<task>/{train,test}.parquet or torchvision's files. None: FL_SIM_DATA, or a download."""
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
    """Evaluate the global model on the test set every so many rounds, and after the last."""
    personalize_steps: Whole = 0
    """Fine-tuning steps of personal evaluation; 0: no personal evaluation."""
    personalize_lr: NotNegative = 0.0
    """Learning rate of personal evaluation; 0: local.lr."""
    personalize_batch_size: Whole = 0
    """Batch size of personal evaluation; 0: local.batch_size."""
    personalize_clients: Count = 100
    """At most so many clients are evaluated personally, of those that train and of the others."""
    personalize_every: Whole = 0
    """Personal evaluation every so many rounds; 0: after the last one only."""
    target: Target = None
    """Accuracy (a fraction) that "rounds to target" in the tables refers to; stop.target is the one that ends a run."""
    engine: Literal["auto", "loop", "vmap", "ray", "flower"] = "auto"
    """How blocks run: one client after another (loop), as one batched model (vmap), what suits (auto), on Ray's workers (ray);
    or not in blocks, through Flower's own simulation (flower)."""
    ray: Ray = field(default_factory=Ray)
    """Ray's workers."""
    block_size: Whole = 0
    """At most so many clients a block; 0: 16, and on the loop no more than give a round 16 blocks, which workers share evenly."""
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
    """A checkpoint every so many rounds, and after the last; 0: each round, or every few where one costs more than 5 % of a round."""
    checkpoint_keep: Whole = 2
    """So many checkpoints stay, of the last rounds; 0: all."""
    schedule_rounds: Whole = 0
    """The number of rounds that schedules (local.lr_schedule, strategy.anneal) end at; 0: rounds. A run that has it can be made longer."""
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
        own = _signature(self.task.thing).get("clients")
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
            kind for kind in PACKAGES if getattr(self, kind).made or getattr(self, kind).name.startswith("__main__:")
        ]
        repeats = "complete: python -m experiments.run THIS_FILE repeats it"
        if objects:
            repeats = f"started from Python with objects ({', '.join(objects)}) that this file can only name: give them again to run(...)"
        title = f"# One run of {self.strategy.name}, {repeats}.\n"
        return title + tomli_w.dumps(self.to_dict())

    @classmethod
    def from_dict(cls, settings: Mapping[str, Any]) -> "Config":
        """The one run that nested settings describe; what they leave out has its default. Raises ConfigError."""
        return single(expand(nested(settings)))


SECTIONS: dict[str, Any] = {"local": Local, "server": Server, "system": System, "ray": Ray, "stop": Stop}
"""The tables of settings with a class of their own."""


def single(configs: Sequence[Config]) -> Config:
    """The only one. Raises ConfigError for several runs."""
    if len(configs) != 1:
        names, numbers = [c.strategy.name for c in configs], [c.seed for c in configs]
        raise ConfigError(
            f"strategy.name = {names}, seed = {numbers}: several runs where one is wanted; give one name and one seed"
        )
    return configs[0]


def nested(settings: Mapping[str, Any]) -> Settings:
    """Dotted keys and bare names as nested dicts: ``{"model": "x", "local.lr": 1}`` is ``{"model": {"name": "x"}, "local": {"lr": 1}}``."""
    result: Settings = {}
    for key, value in settings.items():
        head, _, rest = key.partition(".")
        if rest:
            value = {rest: value}
        elif head in PACKAGES and not isinstance(value, Mapping):
            value = {"name": value}
        if head in SECTIONS and not isinstance(value, Mapping):
            raise ConfigError(f"{head} = {value!r}: must be a table with keys of its own")
        result[head] = {**result.get(head, {}), **value} if head in (*PACKAGES, *SECTIONS) else value
    return result


def expand(settings: Settings, said: Settings | None = None, plan: bool = True) -> list[Config]:
    """One complete config a run: strategies outer, seeds inner.

    ``said``: what was explicitly set for just these strategies (default: all of ``settings``); what each of them
    refuses is then an error, and else dropped. ``plan``: check too that the numbers fit together. Raises ConfigError.
    """
    strategies = choose("strategy", {"name": "fedavg", **settings.get("strategy", {})})
    _check_refused(settings if said is None else said, strategies)
    [task] = choose("task", {"name": "digits", **settings.get("task", {})})
    own_clients = "clients" in _signature(task.thing)
    [partition] = choose("partition", {"name": NATURAL if own_clients else "iid", **settings.get("partition", {})})
    [model] = choose("model", {"name": getattr(task.thing, "default_model", "mlp"), **settings.get("model", {})})
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
    sets = [set(getattr(s.thing, "refuses", ())) for s in strategies]
    return sorted(set.intersection(*sets))


def without(settings: Settings, dotted: Sequence[str]) -> Settings:
    """Nested settings less those keys, and less what is None: TOML cannot say it, and it is the default wherever it is allowed."""
    kept: Settings = {}
    for key, value in settings.items():
        if isinstance(value, Mapping):
            kept[key] = {
                name: part for name, part in value.items() if f"{key}.{name}" not in dotted and part is not None
            }
        elif key not in dotted and value is not None:
            kept[key] = value
    return kept


def known_keys() -> list[str]:
    """All dotted keys of a config, but for the parameters of nouns."""
    keys = []
    for f in fields(Config):
        inner = (
            ["name"]
            if f.name in PACKAGES
            else [part.name for part in fields(SECTIONS[f.name])]
            if f.name in SECTIONS
            else []
        )
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


def _check_refused(said: Settings, strategies: Sequence[Choice]) -> None:
    for key in refused_by(strategies):
        table, _, name = key.rpartition(".")
        part = said.get(table, {}) if table else said
        if name in part:
            who = " and ".join(dict.fromkeys(s.name for s in strategies))
            raise ConfigError(f"{key} = {part[name]!r}: means nothing to {who}; leave it out")


def _signature(thing: Any) -> Mapping[str, inspect.Parameter]:
    return inspect.signature(thing).parameters if inspect.isroutine(thing) or inspect.isclass(thing) else {}


def _check_plan(c: Config) -> None:
    """Refuse numbers that cannot be met together."""
    total = math.inf if c.num_clients is None else c.num_clients
    if c.holdout_clients >= total:
        raise ConfigError(
            f"holdout_clients = {c.holdout_clients}: of {total} clients at least one must train; choose at most {total - 1}"
        )
    if c.cohort > total - c.holdout_clients:
        rest = f"only {total - c.holdout_clients} clients train (clients {total}, holdout_clients {c.holdout_clients})"
        raise ConfigError(f"cohort = {c.cohort}: {rest}; choose at most that, or 0 for all")
    if c.local.momentum and c.local.optimizer != "sgd":
        raise ConfigError(
            f"local.momentum = {c.local.momentum}: means nothing to local.optimizer = {c.local.optimizer!r}; leave it out"
        )
    if c.precision != "full" and (c.dtype != "float32" or (c.precision == "tf32" and c.device == "cpu")):
        raise ConfigError(
            f"precision = {c.precision!r}: means nothing with device = {c.device!r}, dtype = {c.dtype!r}; leave it out"
        )
    if c.engine != "ray" and c.ray != Ray():
        key, value = next((k, v) for k, v in vars(c.ray).items() if v != getattr(Ray(), k))
        raise ConfigError(
            f"ray.{key} = {value!r}: means nothing with engine = {c.engine!r}; add --engine ray, or leave it out"
        )
    if c.personalize_steps > 0 and not c.partition.params.get("held_out"):
        raise ConfigError(
            f"personalize_steps = {c.personalize_steps}: personal evaluation needs test samples of each client's own, but "
            "partition.held_out = 0; set --partition.held_out 0.2"
        )
