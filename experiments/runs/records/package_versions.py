"""Versions of Python and of the main packages, as ``summary.json`` has them."""

import platform
from functools import cache
from importlib.metadata import PackageNotFoundError, version


def versions() -> dict[str, str]:
    """Versions of Python and of the main packages, for ``summary.json``; "not installed" where unknown."""
    return dict(_versions())


@cache
def _versions() -> dict[str, str]:
    found = {"python": platform.python_version()}
    for name in ("flwr", "torch", "numpy", "fl-sim"):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "not installed"
    return found
