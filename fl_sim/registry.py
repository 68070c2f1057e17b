"""Components (tasks, models, partitions, strategies) found by their name in a folder, without registration by hand.

A module offers the components that it *defines* and marks: a function with ``@offer("task")``, or a class with the
attribute ``kind``. A user's own component is named ``package.module:Name``.
"""

import difflib
import importlib
import importlib.util
import inspect
import os
import pkgutil
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any, TypeVar

F = TypeVar("F", bound=Callable[..., object])


@dataclass(frozen=True)
class NameOf:
    """In ``Annotated[str, NameOf(kind, package)]``: a parameter whose value is the name of a component."""

    kind: str
    package: str

    @staticmethod
    def names(hint: object) -> list[str]:
        """All names that a parameter with this annotation may have; [] where it is no such parameter."""
        marks = [mark for mark in getattr(hint, "__metadata__", ()) if isinstance(mark, NameOf)]
        return [name for mark in marks for name in names(mark.package, mark.kind)]


HOME = str(Path(__file__).parents[1])
"""The folder that this project's packages lie in."""


_load: ContextVar[Callable[[str], ModuleType]] = ContextVar("load", default=importlib.import_module)
"""How the modules of components are loaded."""


@contextmanager
def importing_by(load: Callable[[str], ModuleType]) -> Iterator[None]:
    """Within it, the modules of components come from ``load`` instead of ``importlib.import_module``."""
    token = _load.set(load)
    try:
        yield
    finally:
        _load.reset(token)


def offer(kind: str, name: str = "", **facts: object) -> Callable[[F], F]:
    """Decorator: offer a function as a component.

    Parameters
    ----------
    kind : str
        "task", "model" or "partition" ("strategy" and "pool" are the kinds of classes).
    name : str (default: the function's name, with dashes for underscores)
        Its name on the command line and in configs.
    **facts
        Become attributes of the function, such as a task's ``default_model="sine-mlp"``.
    """

    def mark(function: F) -> F:
        function.__dict__.update(facts, kind=kind, offered_as=name or function.__name__.replace("_", "-"))
        return function

    return mark


def offered(module: ModuleType, kind: str) -> dict[str, object]:
    """The components of ``kind`` that one module defines, by name. A class is named after its module's last part."""
    found = {}
    for component in vars(module).values():
        foreign = getattr(component, "kind", None) != kind or getattr(component, "__module__", None) != module.__name__
        # The base class that sets ``kind`` is no component itself.
        if foreign or inspect.isabstract(component) or (inspect.isclass(component) and "kind" in vars(component)):
            continue
        name = (
            getattr(component, "offered_as", "")
            if not inspect.isclass(component)
            else module.__name__.rsplit(".", 1)[-1].replace("_", "-")
        )
        found[name] = component
    return found


def names(package: str, kind: str) -> dict[str, object]:
    """All components of ``kind`` in a package's modules, sorted by name."""
    spec, load = importlib.util.find_spec(package), _load.get()
    folders = None if spec is None else spec.submodule_search_locations
    modules = [load(f"{package}.{info.name}") for info in pkgutil.iter_modules(folders)]
    return dict(sorted(item for module in modules for item in offered(module, kind).items()))


def search_last(*folders: str) -> None:
    """Append folders to ``sys.path``, after the folder of this project, so that no file there replaces its packages.

    Python consults an editable install after all of ``sys.path``: hence the project's own folder is appended too.
    """
    for folder in filter(None, (HOME, *folders)):
        if folder not in sys.path:
            sys.path.append(folder)


def find(package: str, kind: str, name: str) -> Any:
    """The component called ``name``, or the object that ``package.module:Name`` refers to.

    A module is searched in the current folder too, and in those of the environment variable ``FL_SIM_PATH``, both last.
    Raises ValueError that names the kind, the name seen and the nearest valid one.
    """
    if ":" in name:
        module_name, _, attribute = name.partition(":")
        search_last(os.getcwd(), *os.environ.get("FL_SIM_PATH", "").split(os.pathsep))
        try:
            return getattr(importlib.import_module(module_name), attribute)
        except (ImportError, AttributeError) as error:
            raise ValueError(
                f"{kind}.name = {name!r}: cannot be loaded ({error}); it must be package.module:Name"
            ) from error
    known = names(package, kind)
    if name not in known:
        choices = ", ".join(known)
        raise ValueError(
            f"{kind}.name = {name!r}: unknown{nearest(name, known)}; choose one of {choices} or package.module:Name"
        )
    return known[name]


def nearest(name: str, known: Mapping[str, object] | list[str]) -> str:
    """`` (did you mean 'x'?)`` with the known name nearest to ``name``; empty where none is similar."""
    close = difflib.get_close_matches(name, list(known), n=1, cutoff=0.5)
    return f" (did you mean {close[0]!r}?)" if close else ""


def parameters(component: Callable[..., object]) -> dict[str, inspect.Parameter]:
    """The parameters with a default in a component's signature: those that a recipe may set."""
    signature = inspect.signature(component, eval_str=True)
    return {k: p for k, p in signature.parameters.items() if p.default is not inspect.Parameter.empty}
