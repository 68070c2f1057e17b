"""Task, partition, model, strategy: a name, and parameters that come from the signature of what the name finds.

The one place that turns text (or an object, or a function, from Python) into a thing with checked numbers.
"""

import ast
import functools
import inspect
import textwrap
from collections.abc import Mapping
from dataclasses import MISSING, dataclass, field, fields, is_dataclass
from itertools import pairwise
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from experiments.config.values import Seed, Share, check
from fl_sim import registry
from fl_sim.errors import ConfigError

PACKAGES = {
    "task": "clients.tasks",
    "partition": "clients.partitions",
    "model": "clients.models",
    "strategy": "strategies",
}
"""Where the names of each kind are found."""
SUPPLIED = {
    "task": {"data_dir", "clients"},
    "partition": {"task", "clients", "seed"},
    "model": {"inputs", "outputs"},
    "strategy": set(),
}
"""Parameters that the machine supplies: no setting."""


@dataclass(frozen=True)
class Choice:
    """A thing by name, with all of its parameters."""

    name: str
    """One of ``python -m experiments.list``, or package.module:Name."""
    params: Mapping[str, Any] = field(default_factory=dict)
    """All settable parameters, defaults included; of a partition its ``seed`` and ``held_out`` too."""
    thing: Any = field(default=None, compare=False, repr=False)
    """What the name stands for: a function or class to be called with ``params``, or an object that was given ready-made."""

    @property
    def made(self) -> bool:
        """Whether ``thing`` is ready-made, not to be called."""
        return not _is_maker(self.thing)


@dataclass(frozen=True)
class Parameter:
    """One settable parameter of a thing."""

    hint: Any
    """Its type, with constraints."""
    default: Any
    """Its value where nothing is set."""
    help: str = ""
    """What it means."""


COMMON = {
    "partition": {
        "seed": Parameter(Seed, 0, "Seed of the partition, independent of --seed."),
        "held_out": Parameter(Share, 0.0, "Share of a client's samples that are its own test part, never trained on."),
    }
}
"""Parameters that each thing of a kind has, whatever its signature."""


def choose(kind: str, table: Mapping[str, Any]) -> list[Choice]:
    """The things that ``table["name"]`` asks for (several strategies: a list, or text with commas), each with its parameters.

    A parameter reaches the things that take it. Raises ConfigError for a name that finds nothing, a parameter that
    none takes, a value out of range.
    """
    given = {k: v for k, v in table.items() if k != "name"}
    names = names_in(kind, table["name"])
    things = [load(kind, name) for name in names]
    takes = [parameters(kind, thing) for thing in things]
    labels = [name if isinstance(name, str) else label(kind, name) for name in names]
    known = [key for own in takes for key in own]
    for key, value in given.items():
        if key not in known:
            which = f"{kind} {' and '.join(labels)} takes no such parameter{registry.nearest(key, known)}"
            raise ConfigError(
                f"{kind}.{key} = {value!r}: {which}; it takes {', '.join(dict.fromkeys(known)) or 'none'}"
            )
    choices = []
    for text, thing, own in zip(labels, things, takes, strict=True):
        checked = {k: check(f"{kind}.{k}", p.hint, given[k]) if k in given else p.default for k, p in own.items()}
        choices.append(Choice(text, {**_made_with(thing), **checked}, thing))
    return choices


def names_in(kind: str, name: Any) -> list[Any]:
    """Each name (or object) in the value of ``kind.name``; only strategies may be several."""
    if kind != "strategy":
        return [name]
    several = (
        [part.strip() for part in name.split(",")]
        if isinstance(name, str)
        else name
        if isinstance(name, list)
        else [name]
    )
    if not several:
        raise ConfigError(f"{kind}.name = {name!r}: names nothing; give one name or several")
    return several


def load(kind: str, name: Any) -> Any:
    """What ``name`` stands for; anything but text stands for itself. ``package.module:Name`` is looked for in the working folder too."""
    if not isinstance(name, str):
        if name is None or isinstance(name, (bool, int, float, list, dict)):
            raise ConfigError(
                f"{kind}.name = {name!r}: must be text, one of {', '.join(offered(kind))} or package.module:Name"
            )
        return name
    try:
        return registry.find(PACKAGES[kind], kind, name)
    except Exception as error:
        if isinstance(error, ValueError) and str(error).startswith(f"{kind}.name = "):
            raise ConfigError(str(error)) from error
        if ":" in name:  # a user's module may fail in any way while it is imported
            raise ConfigError(
                f"{kind}.name = {name!r}: its module fails when imported: {type(error).__name__}: {error}"
            ) from error
        raise


def offered(kind: str) -> dict[str, Any]:
    """All things of ``kind`` that ship here, by name."""
    return registry.names(PACKAGES[kind], kind)


def label(kind: str, thing: Any) -> str:
    """An object as text: its name here, its own ``name``, or package.module:Name."""
    for name, known in offered(kind).items():
        if thing is known or type(thing) is known:
            return name
    own = getattr(thing, "name", None)
    if isinstance(own, str):
        return own
    maker = thing if _is_maker(thing) else type(thing)
    return f"{maker.__module__}:{maker.__qualname__}"


def parameters(kind: str, thing: Any) -> dict[str, Parameter]:
    """What may be set of a thing: the numbers and texts in its signature (none where it is ready-made), and what is common to its kind."""
    found: dict[str, Parameter] = {}
    if _is_maker(thing):
        docs = field_docs(thing)
        for key, p in _signature(kind, thing).items():
            hint = type(p.default) if p.annotation is inspect.Parameter.empty else p.annotation
            if key not in SUPPLIED[kind] and key != "name" and _is_plain(hint):
                found[key] = Parameter(hint, p.default, docs.get(key, ""))
    return {**found, **COMMON.get(kind, {})}


def _signature(kind: str, thing: Any) -> dict[str, inspect.Parameter]:
    """The parameters with a default. Raises ConfigError where the machine does not supply one of the others."""
    try:
        optional = registry.parameters(thing)
        rest = {k: p.kind for k, p in inspect.signature(thing).parameters.items() if k not in optional}
    except (ValueError, TypeError, NameError) as error:
        raise ConfigError(f"{kind}.name = {label(kind, thing)!r}: its signature cannot be read ({error})") from error
    for key, how in rest.items():
        if key not in SUPPLIED[kind] and how not in (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD):
            allowed = (
                f"only {', '.join(sorted(SUPPLIED[kind]))} may have none" if SUPPLIED[kind] else "each must have one"
            )
            raise ConfigError(f"{kind}.name = {label(kind, thing)!r}: its parameter {key!r} has no default; {allowed}")
    return optional


@functools.cache
def field_docs(cls: Any) -> dict[str, str]:
    """The docstring under each field of a dataclass, its bases' too."""
    docs: dict[str, str] = {}
    for base in reversed(inspect.getmro(cls)) if is_dataclass(cls) and inspect.isclass(cls) else ():
        try:
            tree = ast.parse(textwrap.dedent(inspect.getsource(base)))
        except (OSError, TypeError):  # built in, or typed at a prompt: has no source, so no docs
            continue
        for entry, after in pairwise(tree.body[0].body if isinstance(tree.body[0], ast.ClassDef) else ()):
            if (
                isinstance(entry, ast.AnnAssign)
                and isinstance(after, ast.Expr)
                and isinstance(after.value, ast.Constant)
            ):
                docs[ast.unparse(entry.target)] = inspect.cleandoc(str(after.value.value))
    return docs


def _made_with(thing: Any) -> dict[str, Any]:
    """The numbers that a ready-made dataclass, such as ``FedProx(mu=0.1)``, was made with."""
    if _is_maker(thing) or not is_dataclass(thing):
        return {}
    values = {f.name: getattr(thing, f.name) for f in fields(thing) if f.init and f.default is not MISSING}
    return {k: v for k, v in values.items() if _is_plain(type(v))}


def _is_maker(thing: Any) -> bool:
    return inspect.isclass(thing) or inspect.isroutine(thing)


def _is_plain(hint: Any) -> bool:
    """Whether a value of this type can be written as one word on a command line."""
    origin, inner = get_origin(hint), get_args(hint)
    if origin is Annotated:
        return _is_plain(inner[0])
    if origin in (Union, UnionType):
        return all(_is_plain(part) for part in inner)
    return origin is Literal or hint in (bool, int, float, str, NoneType)
