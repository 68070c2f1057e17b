"""How this project is installed: version, whether its four packages lie together, and what child processes need."""

import os
import sys
from contextlib import suppress
from importlib.util import find_spec

PACKAGES = ("fl_sim", "strategies", "clients", "experiments")
"""The packages of this project. They always lie in one folder."""
ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
"""The folder that holds these packages: the root of a checkout, or the folder that a wheel was installed in."""
COMMANDS = ("-m", "fl-sim")
"""``sys.argv[0]`` while this package is imported by ``python -m experiments.run`` and by the console script."""


def version(default: str) -> str:
    """The installed version, such as ``0.1.0``; ``default`` where this project is a checkout and not installed."""
    from importlib import metadata  # imported here, because few commands need it and it loads slowly

    try:
        return metadata.version("fl-sim")
    except metadata.PackageNotFoundError:
        return default


def refuse_foreign_packages() -> None:
    """Check that the other three packages are found beside this one, without importing them (takes about 0.2 ms).

    Python puts the current folder first on ``sys.path`` for ``python -m``. A user's ``strategies.py`` or ``clients``
    folder there would be imported instead, and fail far away from the cause.

    Raises
    ------
    SystemExit
        With code 2 where a command imports this package; one line on stderr names what was found, and the cure.
    ImportError
        With the same line as its message, where a program imports this package as a library.
    """
    for name in PACKAGES[:-1]:
        if found := foreign(name):
            command = os.path.basename(sys.argv[0] if sys.argv else "").removesuffix(".exe")
            cure = "run fl-sim instead of python -m" if command == "-m" else "take its folder out of PYTHONPATH"
            line = f"{name!r} is found at {found}, which is not the package of fl-sim in {ROOT}: {cure}, or rename it"
            if command not in COMMANDS:
                raise ImportError(line)
            print(f"error: {line}", file=sys.stderr)
            raise SystemExit(2)


def foreign(name: str) -> str:
    """The file or folder that ``import name`` finds if it is not this project's package; empty if it is."""
    try:
        spec = find_spec(name)
    except ValueError:  # sys.modules has a module without a spec: a program put it there on purpose
        return ""
    if spec is None:
        return ""
    found = spec.origin or next(iter(spec.submodule_search_locations or ()), "")
    own, folder = os.path.join(ROOT, name), found if spec.origin is None else os.path.dirname(found)
    with suppress(OSError):
        return "" if folder == own or os.path.samefile(folder, own) else found
    return found


def child_environment() -> dict[str, str]:
    """Environment variables with which a child process finds this project's packages from any folder.

    ``PYTHONSAFEPATH`` keeps Python from putting the current folder first on ``sys.path`` for ``python -m``. A checkout
    is then found by ``PYTHONPATH`` only.
    """
    installed = os.path.basename(ROOT) in ("site-packages", "dist-packages")  # on every interpreter's path as it is
    folders = [*([] if installed else [ROOT]), os.environ.get("PYTHONPATH", "")]
    return {"PYTHONSAFEPATH": "1", "PYTHONPATH": os.pathsep.join(filter(None, folders))}
