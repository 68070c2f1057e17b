"""A Flower project folder: what its pyproject.toml says, and its ServerApp and ClientApp, imported. No paper."""

import importlib
import sys
import tomllib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from flwr.app import UserConfig
from flwr.clientapp import ClientApp
from flwr.serverapp import ServerApp

from fl_sim.errors import ConfigError
from fl_sim.wire import flower

ROUNDS = "num-server-rounds"
"""The key of an app's config that says how many rounds, in Flower's templates."""
KINDS = {"serverapp": ServerApp, "clientapp": ClientApp}


@dataclass(frozen=True)
class Project:
    """What is known of an app before it is imported."""

    folder: Path
    name: str
    components: Mapping[str, str]
    """``serverapp`` and ``clientapp`` as ``module:attribute``."""
    run_config: UserConfig
    """``[tool.flwr.app.config]``, nested keys joined by dots."""
    supernodes: int | None = None
    """How many clients its default federation has, where the project says so."""

    @classmethod
    def read(cls, path: str) -> "Project":
        """The project in the folder ``path``. Raises ConfigError that names ``app``."""
        folder = Path(path).absolute()
        file = folder / "pyproject.toml"
        if not file.is_file():
            why = (
                "it has no pyproject.toml"
                if folder.is_dir()
                else "it is a file"
                if folder.exists()
                else "there is no such folder"
            )
            raise ConfigError(f"app = {path!r}: {why}; name the folder of a Flower project")
        try:
            toml = tomllib.loads(file.read_text(encoding="utf-8"))
        except ValueError as error:
            raise ConfigError(f"app = {path!r}: its pyproject.toml cannot be read ({error})") from error
        components = _table(toml, "tool", "flwr", "app", "components")
        for kind in KINDS:
            reference = components.get(kind)
            if not isinstance(reference, str) or not all(reference.partition(":")[::2]):
                said = f"{kind} = {reference!r}" if kind in components else f"no {kind}"
                wanted = "both serverapp and clientapp must be there, as module:attribute"
                raise ConfigError(
                    f"app = {path!r}: its pyproject.toml has {said} in [tool.flwr.app.components]; {wanted}"
                )
        federations = _table(toml, "tool", "flwr", "federations")
        nodes = _table(federations, str(federations.get("default")), "options").get("num-supernodes")
        name = str(_table(toml, "project").get("name", folder.name))
        flat = _flat(path, _table(toml, "tool", "flwr", "app", "config"))
        return cls(
            folder, name, {kind: components[kind] for kind in KINDS}, flat, nodes if isinstance(nodes, int) else None
        )


@contextmanager
def imported(project: Project) -> Iterator[tuple[ServerApp, ClientApp]]:
    """The project's apps. While open, its folder comes first in the import path, and its modules hide others of their names.

    Afterwards its modules are forgotten and the others are back. Raises ConfigError for what cannot be loaded.
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
    reference = project.components[kind]
    module, _, attributes = reference.partition(":")
    try:
        thing: Any = importlib.import_module(module)
        for attribute in attributes.split("."):
            thing = getattr(thing, attribute)
    except (Exception, SystemExit) as error:  # an app may fail in any way while it is imported
        why = f"{type(error).__name__}: {error}"
        raise ConfigError(
            f"app = {str(project.folder)!r}: its {kind} {reference!r} cannot be loaded ({why})"
        ) from error
    if not isinstance(thing, KINDS[kind]):
        wanted = KINDS[kind].__name__
        raise ConfigError(
            f"app = {str(project.folder)!r}: its {kind} {reference!r} is a {type(thing).__name__}; it must be a {wanted}"
        )
    if isinstance(thing, ServerApp) and not flower.has_main(thing):
        why = (
            "it has no @app.main(): apps of the API before messages (server_fn, start_server) answer in no fixed order"
        )
        raise ConfigError(
            f"app = {str(project.folder)!r}: its serverapp {reference!r} cannot be run reproducibly; {why}"
        )
    return thing


def _table(table: Any, *keys: str) -> dict[str, Any]:
    """The table below ``keys``; empty where there is none."""
    for key in keys:
        table = table.get(key) if isinstance(table, Mapping) else None
    return dict(table) if isinstance(table, Mapping) else {}


def _flat(path: str, table: Mapping[str, Any], prefix: str = "") -> UserConfig:
    """Nested tables as one, with dotted keys, as Flower hands them to apps."""
    flat: UserConfig = {}
    for key, value in table.items():
        if isinstance(value, Mapping):
            flat |= _flat(path, value, f"{prefix}{key}.")
        elif isinstance(value, (bool, int, float, str)):
            flat[prefix + key] = value
        else:
            raise ConfigError(
                f"app = {path!r}: config {prefix}{key} = {value!r} is neither number, text, true nor false"
            )
    return flat


def _top_level(folder: Path) -> set[str]:
    """Names that can be imported from a folder, but for those of the standard library."""
    files = {file.stem for file in folder.glob("*.py")}
    folders = {file.parent.name for file in folder.glob("*/*.py")} | {
        file.parent.parent.name for file in folder.glob("*/*/*.py")
    }
    return {name for name in files | folders if name.isidentifier() and name not in sys.stdlib_module_names}


def _inside(module: Any, folder: Path) -> bool:
    """Whether a module comes from below a folder."""
    places = [getattr(module, "__file__", None), *getattr(module, "__path__", ())]
    return any(place and Path(place).is_relative_to(folder) for place in places)
