"""One run's complete config: frozen dataclasses, filled from a recipe (TOML), flags or Python, and checked first.

Settings that a user gives are nested dicts with few keys (``nested``); ``expand`` turns them into complete configs.
"""

import inspect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any, Literal

import tomli_w

from clients.silo.silo_options import Silo
from experiments.config.choices import BY_RUN, PACKAGES, Choice, load
from experiments.config.nesting import Settings, without
from experiments.config.tables import SECTIONS, Server, Stop, System
from experiments.config.values import (
    Count,
    Device,
    Failures,
    Folder,
    NotNegative,
    Seed,
    SetMetrics,
    Share,
    Target,
    Threads,
    Whole,
)
from fl_sim.executors.ray.options import Ray
from fl_sim.learning.settings import Local
from strategies.codecs import NO_CODEC

HONEST = "none"
"""Name of the attack of a run without malicious clients."""
NATURAL = "natural"
"""Name of the partition whose clients are the natural clients of the task."""


def honest() -> Choice:
    """No attack, as in a run that names none."""
    return Choice(HONEST, {"share": 0.0}, load("attack", HONEST))


def no_codec() -> Choice:
    """No codec, as in a run that names none."""
    return Choice(NO_CODEC, {"feedback": None, "trees": "", "schedule": "", "down": ""}, load("codec", NO_CODEC))


@dataclass(frozen=True)
class Config:
    """One run. ``make`` and ``stored_config`` check the configs that they build; the constructor does not."""

    task: Choice
    """The data set and its loss."""
    partition: Choice
    """Which client owns which samples."""
    model: Choice
    """The network."""
    strategy: Choice
    """The algorithm: its server half and its client half."""
    profile: Choice
    """The clients' devices: how long they take in virtual time."""
    attack: Choice = field(default_factory=honest)
    """What malicious clients do; none: every client is honest. Only in simulations."""
    codec: Choice = field(default_factory=no_codec)
    """How clients code their updates in fewer bytes; none: they send them whole."""
    data_dir: Folder = None
    """Folder of data sets: DIR/<task>/{train,test}.parquet or torchvision's files. None: FL_SIM_DATA, or a download."""
    validation: Share = 0.0
    """Share of the training samples that is kept centrally for validation; 0: every sample trains."""
    clients: Whole = 0
    """Number of clients; 0: 10, or all natural clients of the task where the partition is natural."""
    holdout_clients: Whole = 0
    """Number of clients that never train; personal evaluation reports them separately."""
    validation_clients: Whole = 0
    """Number of further clients that never train: what a run chooses reads them (columns val_unseen_*)."""
    cohort: Whole = 0
    """Number of clients that train in a round; 0: all that may."""
    concurrency: Whole = 0
    """Number of clients in flight, of an asynchronous strategy; 0: all that may train."""
    rounds: Count = 10
    """Communication rounds; of an asynchronous strategy server steps, as in all settings that count rounds."""
    local: Local = field(default_factory=Local)
    """Training inside one client."""
    server: Server = field(default_factory=Server)
    """The server's step."""
    system: System = field(default_factory=System)
    """Behaviour of the clients' devices."""
    weighting: Literal["examples", "uniform"] | None = None
    """Weight of a client in the mean: its number of training samples, or 1. None: the strategy's own."""
    augment: bool = False
    """Random crops and flips of training images."""
    standardize: bool = False
    """Inputs minus their mean in the training set, divided by their standard deviation; off: pixels in [0, 1]."""
    standardize_on: Literal["train", "all"] = "train"
    """Samples that give them: train: those that clients train on; all: held-out ones and unseen clients' too."""
    set_metrics: SetMetrics = ""
    """Metrics of a whole set (f1,auroc,confusion,calibration,class_accuracy): central sets, and each client's own."""
    evaluate_every: Whole = 1
    """Rounds between evaluations of the global model on the test set; the final model is evaluated too.
    0 (asynchronous: unless given): the initial and the final one only."""
    evaluate_virtual: NotNegative = 0.0
    """Virtual seconds between such evaluations, of an asynchronous strategy; 0: none."""
    evaluate_train: bool = False
    """Whether it is evaluated then on all training clients' samples too: columns train_set_loss, train_set_accuracy."""
    log_drift: bool = False
    """Whether rounds have the columns drift and cosine of the clients' updates; takes two models' memory in float64."""
    keep_best: bool = False
    """Whether the model with the best val_accuracy (or val_loss) so far is kept: folder best/, and log.best()."""
    personalize_steps: Whole = 0
    """Fine-tuning steps of personal evaluation; 0: no personal evaluation."""
    personalize_lr: NotNegative = 0.0
    """Learning rate of personal evaluation; 0: local.lr. A strategy without local.lr (maml) stores the rate here."""
    personalize_optimizer: Literal["sgd", "adam"] = "sgd"
    """Update rule of personal evaluation, without momentum, weight decay or clipping."""
    personalize_queries: Literal["together", "alone"] = "together"
    """Networks that normalise by the batch (conv4): held-out samples all at once, or each alone with the support."""
    personalize_batch_size: Whole = 0
    """Batch size of personal evaluation; 0: local.batch_size."""
    personalize_clients: Count = 100
    """Most clients in a personal evaluation: up to this number that train, and as many that never train."""
    personalize_every: Whole = 0
    """Rounds between personal evaluations; 0: after the last round only."""
    target: Target = None
    """Accuracy (a fraction) that "rounds to target" in the tables refers to; stop.target is the one that ends a run."""
    engine: Literal["auto", "loop", "vmap", "ray", "flower"] = "auto"
    """loop: client by client; vmap: one batched model; auto: one of the two; ray: workers; flower: its simulation."""
    ray: Ray = field(default_factory=Ray)
    """Ray's workers."""
    silo: Silo = field(default_factory=Silo)
    """Training that is itself distributed inside each client."""
    block_size: Whole = 0
    """Most clients in a block; 0: by the fixed rule in experiments/runs/block_size.py."""
    chunk: Whole = 0
    """Clients of a block that vmap runs at once; 0: the whole block."""
    threads: Threads = 1
    """Number of CPU threads that train a block."""
    dtype: Literal["float32", "float64"] = "float32"
    """Floating-point type of models and inputs."""
    precision: Literal["full", "tf32", "bf16"] = "full"
    """Of float32 matrix products: full, tf32 (factors rounded to TF32; GPU only) or bf16 (autocast to bfloat16)."""
    device: Device = "cpu"
    """Where blocks run: cpu, cuda or cuda:N."""
    seed: Seed = 0
    """Seed of all random draws but the partition's. Several runs: 0,1,2 or 0..4."""
    out: str = "runs"
    """Parent folder of the run folders."""
    failures: Failures = "raise"
    """Effect of a failing client: raise fails the run; tolerate:0.2 drops up to that share of a round's clients."""
    client_timeout: NotNegative = 0.0
    """Seconds a client may take (on vmap a batch), then it is ended and has failed; CPU or Ray; 0: no limit."""
    checkpoint_every: Whole = 0
    """Rounds between checkpoints (and one after the last round); 0: so that they take at most 2 % of the time;
    asynchronous: none before the end."""
    checkpoint_keep: Whole = 2
    """Number of checkpoints that are kept, the newest; 0: all."""
    schedule_rounds: Whole = 0
    """Round at which schedules (local.lr_schedule, strategy.anneal) end, so that --rounds may grow later; 0: rounds."""
    stop: Stop = field(default_factory=Stop)
    """When a run ends early."""
    time_limit: NotNegative = 0.0
    """Seconds after which no further round begins, those before a resume included; 0: none."""
    digest_every: Whole = 1
    """Rounds between SHA-256 digests of the model in rounds.jsonl; evaluated rounds and the last have one anyway.
    0 (asynchronous: unless given): no others."""
    fork: str = ""
    """RUN@N: begin at the checkpoint of round N of the run in folder RUN; RUN alone: at its last one."""

    @property
    def never_train(self) -> int:
        """How many clients, those with the last ids, never train: validation clients, then unseen ones."""
        return self.validation_clients + self.holdout_clients

    @property
    def together(self) -> int:
        """Number of clients that train at a time: of a round, or in flight; 0: all that train."""
        return self.cohort or self.concurrency

    @property
    def num_clients(self) -> int | None:
        """Number of clients; None where it is known only from the task's data."""
        if self.clients or self.partition.name != NATURAL:
            return self.clients or 10
        own = signature(self.task.component).get("clients")
        return own.default if own is not None and isinstance(own.default, int) else None

    def to_dict(self) -> Settings:
        """All settings as plain nested dicts, without those that are None or that the strategy refuses."""
        plain: Settings = {}
        for f in fields(self):
            value = getattr(self, f.name)
            if isinstance(value, Choice):
                by_run = [k for k in BY_RUN if k not in value.given]
                plain[f.name] = {"name": value.name, **{k: v for k, v in value.params.items() if k not in by_run}}
            else:
                plain[f.name] = vars(value) if f.name in SECTIONS else value
        if self.engine != "ray":
            del plain["ray"]
        if not self.silo.processes:
            del plain["silo"]
        if self.attack.name == HONEST:
            del plain["attack"]
        if self.codec.name == NO_CODEC and not self.codec.params["down"]:
            del plain["codec"]
        if not getattr(self.strategy.component, "asynchronous", False):
            del plain["concurrency"], plain["evaluate_virtual"]
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


def refused_by(strategies: Sequence[Choice]) -> list[str]:
    """The dotted keys that every one of these strategies refuses (by the attribute ``refuses``)."""
    sets = [set(getattr(s.component, "refuses", ())) for s in strategies]
    return sorted(set.intersection(*sets))


def known_keys() -> list[str]:
    """All dotted keys of a config, except the parameters of components."""
    keys = []
    for f in fields(Config):
        inner = ["name"] if f.name in PACKAGES else []
        if f.name in SECTIONS:
            inner = [part.name for part in fields(SECTIONS[f.name])]
        keys += [f"{f.name}.{name}" for name in inner] or [f.name]
    return keys


def signature(component: Any) -> Mapping[str, inspect.Parameter]:
    """The parameters of a component that is called; none of one that is used as it is."""
    is_maker = inspect.isroutine(component) or inspect.isclass(component)
    return inspect.signature(component).parameters if is_maker else {}
