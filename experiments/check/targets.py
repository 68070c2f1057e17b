"""What ``experiments.check`` checks: components and strategies of a module, and the checks for each kind."""

import functools
import importlib.util
import inspect
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Annotated, Any, Literal, get_args, get_origin

from flwr.serverapp import strategy as flower_strategies

from experiments.check.component_checks import MODEL_CHECKS, PARTITION_CHECKS
from experiments.check.places import raised_at
from experiments.check.strategy_checks import CHECKS, FLOWER_CHECKS
from experiments.check.task_checks import TASK_CHECKS
from fl_sim import registry
from strategies.base.strategy import Strategy

Check = Callable[[Any], None]
"""A check takes a function that builds the object to check, and raises AssertionError with the reason of a failure."""
OF_KIND: dict[str, list[Check]] = {"task": TASK_CHECKS, "partition": PARTITION_CHECKS, "model": MODEL_CHECKS}
"""The checks of each kind of component."""


@dataclass(frozen=True)
class Target:
    """An object to check."""

    kind: str
    """strategy, task, partition or model."""
    name: str
    """Its name in the output."""
    make: Callable[..., object]
    """Builds the object; the same function for all checks of it, so that expensive runs are computed once."""
    checks: Sequence[Check]
    """The checks of its kind."""


def variants(component: Callable[..., object]) -> list[dict[str, object]]:
    """Keyword arguments that show each variant: none, then each other value of a ``Literal`` and each other name."""
    found: list[dict[str, object]] = [{}]
    try:
        parameters = registry.parameters(component)
    except (NameError, ValueError, TypeError):  # the signature cannot be read; the checks will report what is wrong
        return found
    for name, parameter in parameters.items():
        hint = parameter.annotation
        found += [{name: value} for value in registry.NameOf.names(hint) if value != parameter.default]
        hint = get_args(hint)[0] if get_origin(hint) is Annotated else hint
        if get_origin(hint) is Literal:
            found += [{name: value} for value in get_args(hint) if value != parameter.default]
    return found


def targets_of(kind: str, name: str, component: Callable[..., object]) -> list[Target]:
    """All variants of a component or strategy, each with the checks for its kind."""
    ours = inspect.isclass(component) and issubclass(component, Strategy)
    checks = OF_KIND.get(kind) or (CHECKS if ours else FLOWER_CHECKS)
    targets = []
    for arguments in variants(component):
        text = ", ".join(f"{k}={v!r}" for k, v in arguments.items())
        make = functools.partial(component, **arguments)
        targets.append(Target(kind, name + f"({text})" * bool(text), make, checks))
    return targets


def offers(module: ModuleType) -> list[tuple[str, str, Any]]:
    """(kind, name, object) of the strategies and offered components that a module itself defines."""
    found: list[tuple[str, str, object]] = []
    for name, value in vars(module).items():
        if getattr(value, "__module__", None) != module.__name__:
            continue
        if inspect.isclass(value) and issubclass(value, flower_strategies.Strategy) and not inspect.isabstract(value):
            found.append(("strategy", name, value))
        elif inspect.isfunction(value) and getattr(value, "kind", None) in OF_KIND:
            found.append((value.__dict__["kind"], value.__dict__["offered_as"], value))
    return found


@contextmanager
def loaded(path: Path) -> Iterator[ModuleType]:
    """Import a file as a module for the duration of a ``with`` statement. Raises ValueError where that fails."""
    if not path.is_file() or path.suffix != ".py":
        why = "must be a Python file (.py)" if path.exists() else "there is no such file"
        raise ValueError(f"{str(path)!r}: {why}")
    name = path.stem if path.stem not in sys.modules else f"{path.stem}_checked"
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    folder = str(path.resolve().parent)
    sys.modules[name] = module  # dataclasses and pickle look a class up there
    sys.path.append(folder)  # the file may import its neighbours, as when it is run
    try:
        try:
            spec.loader.exec_module(module)
        except (Exception, SystemExit) as error:
            why = f"{type(error).__name__}: {error}{raised_at(error)}"
            raise ValueError(f"{str(path)!r}: fails when imported: {why}") from error
        yield module
    finally:
        sys.modules.pop(name, None)
        sys.path.remove(folder)
