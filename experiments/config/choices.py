"""Components (task, partition, model, strategy, profile): a name, and parameters from the signature of what it finds.

This module alone turns text (or an object or a function from Python) into a component with checked parameters.
"""

import ast
import functools
import inspect
import textwrap
from collections.abc import Mapping
from dataclasses import MISSING, dataclass, field, fields, is_dataclass
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from experiments.config.offered.outlines import field_docs_in
from experiments.config.strategy_tables import given_to_each, names_in
from experiments.config.values import Label, Minority, NotNegative, Seed, Share, Strength, check, plain
from fl_sim import registry
from fl_sim.errors import ConfigError

PACKAGES = {
    "task": "clients.tasks",
    "partition": "clients.partitions",
    "model": "clients.models",
    "strategy": "strategies",
    "attack": "clients.attacks",
    "codec": "strategies.codecs",
    "profile": "clients.profiles",
}
"""The package in which names of each kind are found."""
SUPPLIED = {
    "task": {"data_dir", "clients", "holdout_clients", "validation_clients"},
    "partition": {"task", "clients", "seed"},
    "model": {"inputs", "outputs"},
    "strategy": set(),
    "attack": set(),
    "codec": set(),
    "profile": {"clients", "training", "seed", "per"},
}
"""Parameters that the run supplies, so that they are no settings."""


@dataclass(frozen=True)
class Choice:
    """A component by name, with all of its parameters."""

    name: str
    """A name that ``python -m experiments.list`` prints, or package.module:Name."""
    params: Mapping[str, Any] = field(default_factory=dict)
    """All settable parameters, defaults included; those of a partition include ``seed``, ``held_out`` and so on."""
    component: Any = field(default=None, compare=False, repr=False)
    """The component itself: a function or class to be called with ``params``, or an object that the user passed."""
    given: frozenset[str] = field(default=frozenset(), compare=False, repr=False)
    """Those of ``params`` that the user, or the config of a run, sets; the others have their defaults."""

    @property
    def is_object(self) -> bool:
        """Whether ``component`` is an object that is used as it is, and not a function or class to be called."""
        return not _is_maker(self.component)


@dataclass(frozen=True)
class Parameter:
    """One settable parameter of a component."""

    hint: Any
    """Its type, with constraints."""
    default: Any
    """Its value where the user sets none."""
    help: str = ""
    """Its description in ``--help``."""


BY_RUN = ("fraction_train", "fraction_evaluate", "min_train_nodes", "min_evaluate_nodes", "min_available_nodes")
"""Parameters of Flower's strategies that the run decides where the user sets none of them."""
COMMON = {
    "task": {
        "class_axis": Parameter(
            Literal["auto", 1, -1] | None,
            None,
            "Axis of the classes where a sample has several labels: 1 for outputs (B, K, ...), -1 for (B, ..., K).",
        ),
        "ignore_index": Parameter(
            Label, None, "Label that counts neither in loss nor in accuracy; None: the task's own, or -100."
        ),
    },
    "partition": {
        "seed": Parameter(Seed, 0, "Seed of the partition, independent of --seed."),
        "held_out": Parameter(Share, 0.0, "Share of a client's samples that are its own test part, never trained on."),
        "unseen_held_out": Parameter(
            Share | None,
            None,
            "The same for clients that never train (unseen, validation) alone; None: held_out.",
        ),
        "feature_shift": Parameter(
            Strength,
            0.0,
            "Strength, 0..1, of each client's own contrast, inversion, noise and rotation of its pictures.",
        ),
    },
    "attack": {
        "share": Parameter(
            Minority,
            0.0,
            "Share of the clients of each round that are malicious, at most .5: share x clients, rounded.",
        ),
    },
    "codec": {
        "feedback": Parameter(
            bool | None,
            None,
            "Whether a client adds what its code lost to its next update; None: where the codec is biased.",
        ),
        "trees": Parameter(
            str, "", "Trees beside the model that are coded too, such as control variates: names with commas."
        ),
        "schedule": Parameter(
            str,
            "",
            "Coordinates for each number that is sent, from the first to the last round, such as 16..1.",
        ),
        "down": Parameter(
            str,
            "",
            "Codec of the model's changes to the clients, with its numbers, as topk,share=0.05; by its name alone it "
            "has its defaults, or the numbers of --codec where that is the same.",
        ),
    },
    "profile": {
        "seed": Parameter(Seed, 0, "Seed of the devices, independent of --seed: the same ones for every strategy."),
        "per": Parameter(
            Literal["client", "launch"],
            "client",
            "Whether a client keeps its device, or draws one each time it trains.",
        ),
        "step": Parameter(
            NotNegative | None,
            None,
            "Virtual seconds of a step on a device of slowness 1; None: 1, or 0 where the profile has seconds.",
        ),
        "sample": Parameter(NotNegative, 0.0, "Virtual seconds of each sample in a step, besides."),
        "down": Parameter(NotNegative, 0.0, "Bytes a second to a device; 0: no limit."),
        "up": Parameter(NotNegative, 0.0, "Bytes a second from a device; 0: no limit."),
        "latency": Parameter(NotNegative, 0.0, "Virtual seconds that a message takes besides its bytes, one way."),
        "vanish": Parameter(Share, 0.0, "Probability that a device vanishes while it works, and never answers."),
        "on": Parameter(NotNegative, 0.0, "Virtual seconds in which a device is there, at a time; 0: always."),
        "off": Parameter(NotNegative, 0.0, "Virtual seconds between them."),
    },
}
"""Parameters that every component of a kind has in addition to those in its signature."""


def choose(kind: str, table: Mapping[str, Any]) -> list[Choice]:
    """The components that ``table["name"]`` names, each with its parameters from ``table``.

    Several strategies are a list, or text with commas. A parameter reaches each of the components that take it;
    ``NAME.PARAMETER`` reaches the strategy NAME alone. Raises ConfigError for a name that is not found, a parameter
    that none of them takes, a value out of range, and a strategy that is named twice.
    """
    names = names_in(kind, table["name"])
    components = [load(kind, name) for name in names]
    takes = [parameters(kind, *pair) for pair in zip(components, names, strict=True)]
    labels = [name if isinstance(name, str) else label(kind, name) for name in names]
    twice = next((text for text in labels if labels.count(text) > 1), None)
    if twice is not None:
        raise ConfigError(f"{kind}.name = {twice!r}: is named twice, which would count one run as two; give it once")
    everyone, choices = given_to_each(kind, table, dict(zip(labels, takes, strict=True))), []
    for text, component, own in zip(labels, components, takes, strict=True):
        given = everyone[text]
        checked = {k: check(f"{kind}.{k}", p.hint, given[k]) if k in given else p.default for k, p in own.items()}
        for k in (k for k, v in checked.items() if v is None and own[k].default is not None):
            why = f"a run's config has no place for None, and would repeat the run with the default {own[k].default!r}"
            raise ConfigError(f"{kind}.{k} = None: {why}; make None the default, or give a number that means the same")
        built = _built_with(component)
        choices.append(Choice(text, {**built, **checked}, component, frozenset({*built, *given})))
    return choices


def load(kind: str, name: Any) -> Any:
    """The component that ``name`` stands for; a value that is not text is the component itself.

    ``package.module:Name`` is searched in the current folder too. Raises ConfigError where nothing is found.
    """
    if not isinstance(name, str):
        if name is None or isinstance(name, (bool, int, float, list, dict)):
            names = ", ".join(offered(kind))
            raise ConfigError(f"{kind}.name = {name!r}: must be text, one of {names} or package.module:Name")
        return name
    try:
        return registry.find(PACKAGES[kind], kind, name)
    except (Exception, SystemExit) as error:
        if isinstance(error, ValueError) and str(error).startswith(f"{kind}.name = "):
            raise ConfigError(str(error)) from error
        if ":" in name:  # a user's module may fail in any way while it is imported
            why = f"its module fails when imported: {type(error).__name__}: {error}"
            raise ConfigError(f"{kind}.name = {name!r}: {why}") from error
        raise


def offered(kind: str) -> dict[str, Any]:
    """All components of ``kind`` that come with this project, by name."""
    return registry.names(PACKAGES[kind], kind)


def label(kind: str, component: Any) -> str:
    """A component as text: its name in this project, else its attribute ``name``, else package.module:Name."""
    for name, known in offered(kind).items():
        if component is known or type(component) is known:
            return name
    own = getattr(component, "name", None)
    if isinstance(own, str):
        return own
    maker = component if _is_maker(component) else type(component)
    return f"{maker.__module__}:{maker.__qualname__}"


def parameters(kind: str, component: Any, name: object = None) -> dict[str, Parameter]:
    """A component's settable parameters: numbers and texts in its signature, and those common to its kind.

    An object that is used as it is has only those common to its kind. ``name``: the text by which a user named it, for
    errors.
    """
    found: dict[str, Parameter] = {}
    if _is_maker(component):
        docs = field_docs(component)
        for key, p in _signature(kind, component, name if isinstance(name, str) else "").items():
            hint = type(p.default) if p.annotation is inspect.Parameter.empty else p.annotation
            if key not in SUPPLIED[kind] and key != "name" and _is_plain(hint):
                found[key] = Parameter(hint, p.default, docs.get(key, ""))
    return {**found, **COMMON.get(kind, {})}


def _signature(kind: str, component: Any, name: str) -> dict[str, inspect.Parameter]:
    """The parameters with a default. Raises ConfigError where the run does not supply a parameter without one."""
    try:
        optional = registry.parameters(component)
        rest = {k: p.kind for k, p in inspect.signature(component).parameters.items() if k not in optional}
    except (ValueError, TypeError, NameError) as error:
        raise ConfigError(
            f"{kind}.name = {name or label(kind, component)!r}: its signature cannot be read ({error})"
        ) from error
    for key, how in rest.items():
        if key not in SUPPLIED[kind] and how not in (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD):
            supplied = ", ".join(sorted(SUPPLIED[kind]))
            own = f"def make({key}=...): return {getattr(component, '__name__', kind)}({key}={key})"
            allowed = f"only {supplied} may have none" if supplied else "each must have one"
            allowed += f"; write a function that gives it, {own}, and name that"
            raise ConfigError(
                f"{kind}.name = {name or label(kind, component)!r}: its parameter {key!r} has no default; {allowed}"
            )
    return optional


@functools.cache
def field_docs(cls: Any) -> dict[str, str]:
    """The docstring under each field of a dataclass and of its base classes, by the field's name."""
    docs: dict[str, str] = {}
    for base in reversed(inspect.getmro(cls)) if is_dataclass(cls) and inspect.isclass(cls) else ():
        if "field_docs" in vars(base):  # an outline
            docs |= vars(base)["field_docs"]
            continue
        try:
            tree = ast.parse(textwrap.dedent(inspect.getsource(base)))
        except (OSError, TypeError):  # built in, or typed at a prompt: has no source, so no docs
            continue
        docs |= field_docs_in(tree.body[0]) if isinstance(tree.body[0], ast.ClassDef) else {}
    return docs


def _built_with(component: Any) -> dict[str, Any]:
    """The plain values in the fields of a dataclass object, such as ``{"mu": 0.1}`` of ``FedProx(mu=0.1)``."""
    if _is_maker(component) or not is_dataclass(component):
        return {}
    values = {
        f.name: plain(getattr(component, f.name)) for f in fields(component) if f.init and f.default is not MISSING
    }
    return {k: v for k, v in values.items() if _is_plain(type(v))}


def _is_maker(component: Any) -> bool:
    return inspect.isclass(component) or inspect.isroutine(component)


def _is_plain(hint: Any) -> bool:
    """Whether a value of this type can be written as one word on a command line."""
    origin, inner = get_origin(hint), get_args(hint)
    if origin is Annotated:
        return _is_plain(inner[0])
    if origin in (Union, UnionType):
        return all(_is_plain(part) for part in inner)
    return origin is Literal or hint in (bool, int, float, str, NoneType)
