"""The folder that ``flwr run`` sends to devices: the packages, wherever they are installed, and a pyproject.toml."""

import shutil
from pathlib import Path

import tomli_w

from experiments.installation import PACKAGES, ROOT, version

PROJECT = {
    "name": "fl-sim",
    "description": "Federated learning, simulated and deployed by the same code, on Flower",
    "license": "Apache-2.0",
}
APP: dict[str, object] = {
    "publisher": "fl-sim",
    "components": {"serverapp": "experiments.deploy.server_app:app", "clientapp": "clients.app:app"},
    "config": {"args": "", "node-timeout-s": 300.0, "timeout-s": 3600.0, "report": ""},
}
"""Flower's tables ``[tool.flwr.app]``.

The pyproject.toml of a checkout has the same tables, for ``flwr run .``; a test compares the two.
"""
LEFT_OUT = ("bench", "results", "studies", "__pycache__")
"""Folders that devices do not need."""


def write_bundle(folder: Path) -> None:
    """Make ``folder`` and write the Flower app into it: code and recipes, and nothing else.

    Its pyproject.toml names no dependencies: every machine has the packages installed.
    """
    folder.mkdir()
    for package in PACKAGES:
        source = Path(ROOT) / package
        for file in sorted([*source.rglob("*.py"), *source.rglob("*.toml")]):
            inside = file.relative_to(ROOT)
            if not set(LEFT_OUT) & set(inside.parts):
                (folder / inside).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(file, folder / inside)
    tables = {"project": {**PROJECT, "version": version("0.0.0")}, "tool": {"flwr": {"app": APP}}}
    (folder / "pyproject.toml").write_text(tomli_w.dumps(tables), encoding="utf-8")
