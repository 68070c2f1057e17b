"""A Flower project folder: the contents of its pyproject.toml, and its ServerApp and ClientApp, imported."""

import importlib
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from flwr.app import UserConfig
from flwr.clientapp import ClientApp
from flwr.serverapp import ServerApp

from fl_sim.dotted import flatten
from fl_sim.errors import ConfigError
from fl_sim.logs.toml import read_toml

ROUNDS = "num-server-rounds"
"""The key of an app's config that holds the number of rounds, in Flower's templates."""
KINDS = {"serverapp": ServerApp, "clientapp": ClientApp}
"""The two components of an app, and the type that each must have."""


@dataclass(frozen=True)
class Project:
    """The contents of an app's pyproject.toml; the app itself is not imported."""

    folder: Path
    name: str
    components: Mapping[str, str]
    """``serverapp`` and ``clientapp`` as ``module:attribute``."""
    run_config: UserConfig
    """``[tool.flwr.app.config]`` with nested keys joined by dots."""
    supernodes: int | None = None
    """Number of clients of its default federation; None where the project does not set it."""

    @classmethod
    def read(cls, path: str) -> "Project":
        """Read the project in the folder ``path``. Raises ConfigError where that is no Flower project."""
        folder = Path(path).absolute()
        file = folder / "pyproject.toml"
        if not file.is_file():
            why = "it is a file" if folder.exists() else "there is no such folder"
            why = "it has no pyproject.toml" if folder.is_dir() else why
            raise ConfigError(f"app = {path!r}: {why}; name the folder of a Flower project")
        try:
            toml = read_toml(file)
        except ValueError as error:
            raise ConfigError(f"app = {path!r}: its pyproject.toml cannot be read ({error})") from error
        components = _table(toml, "tool", "flwr", "app", "components")
        for kind in KINDS:
            reference = components.get(kind)
            if not isinstance(reference, str) or not all(reference.partition(":")[::2]):
                found = f"{kind} = {reference!r}" if kind in components else f"no {kind}"
                must = "both serverapp and clientapp must be there, as module:attribute"
                raise ConfigError(
                    f"app = {path!r}: its pyproject.toml has {found} in [tool.flwr.app.components]; {must}"
                )
        federations = _table(toml, "tool", "flwr", "federations")
        nodes = _table(federations, str(federations.get("default")), "options").get("num-supernodes")
        name = str(_table(toml, "project").get("name", folder.name))
        flat = _run_config(path, _table(toml, "tool", "flwr", "app", "config"))
        references = {kind: components[kind] for kind in KINDS}
        return cls(folder, name, references, flat, nodes if isinstance(nodes, int) else None)


@contextmanager
def imported(project: Project) -> Iterator[tuple[ServerApp, ClientApp]]:
    """Import the project's apps for the duration of a ``with`` statement.

    Inside it the project's folder comes first in the import path, and its modules hide other modules with the same
    names. On leaving, the project's modules are removed from ``sys.modules`` and the others are put back.

    Raises
    ------
    ConfigError
        Where an app cannot be imported or has the wrong type.
    """
    own = _top_level(project.folder)
    hidden = {k: m for k, m in sys.modules.items() if k.partition(".")[0] in own and not _inside(m, project.folder)}
    before = set(sys.modules) - set(hidden)
    for name in hidden:
        del sys.modules[name]
    sys.path.insert(0, str(project.folder))
    importlib.invalidate_caches()
    try:
        server, client = (_load(project, kind) for kind in KINDS)
        yield server, client
    finally:
        if str(project.folder) in sys.path:
            sys.path.remove(str(project.folder))
        for name in [k for k in sys.modules if k.partition(".")[0] in own and k not in before]:
            del sys.modules[name]
        sys.modules.update(hidden)


def _load(project: Project, kind: str) -> Any:
    """Import one component of the project. Raises ConfigError where that fails or gives an object of the wrong type."""
    reference = project.components[kind]
    module, _, attributes = reference.partition(":")
    try:
        component: object = importlib.import_module(module)
        for attribute in attributes.split("."):
            component = getattr(component, attribute)
    except (Exception, SystemExit) as error:  # an app may fail in any way while it is imported
        why = f"{type(error).__name__}: {error}"
        raise ConfigError(
            f"app = {str(project.folder)!r}: its {kind} {reference!r} cannot be loaded ({why})"
        ) from error
    if not isinstance(component, KINDS[kind]):
        found, required = type(component).__name__, KINDS[kind].__name__
        raise ConfigError(
            f"app = {str(project.folder)!r}: its {kind} {reference!r} is a {found}; it must be a {required}"
        )
    return component


def _table(table: object, *keys: str) -> dict[str, Any]:
    """The table below ``keys``; empty where there is none."""
    for key in keys:
        table = table.get(key) if isinstance(table, Mapping) else None
    return dict(table) if isinstance(table, Mapping) else {}


def _run_config(path: str, table: Mapping[str, object]) -> UserConfig:
    """Nested tables by dotted names, as Flower hands them to apps. Raises ConfigError for other types of values."""
    flat: UserConfig = {}
    for key, value in flatten(table).items():
        if not isinstance(value, (bool, int, float, str)):
            raise ConfigError(f"app = {path!r}: config {key} = {value!r} is neither number, text, true nor false")
        flat[key] = value
    return flat


def _top_level(folder: Path) -> set[str]:
    """Names of modules and packages in a folder, except those that the standard library has too."""
    files = {file.stem for file in folder.glob("*.py")}
    folders = {file.parent.name for file in folder.glob("*/*.py")}
    folders |= {file.parent.parent.name for file in folder.glob("*/*/*.py")}
    return {name for name in files | folders if name.isidentifier() and name not in sys.stdlib_module_names}


def _inside(module: ModuleType, folder: Path) -> bool:
    """Whether a module was imported from below a folder."""
    places = [getattr(module, "__file__", None), *getattr(module, "__path__", ())]
    return any(place and Path(place).is_relative_to(folder) for place in places)
