"""Imports a module as if PyTorch lacked one of its private names."""

import importlib.util
from types import ModuleType
from typing import Any

import pytest


def import_without(module: ModuleType, owner: Any, name: str) -> ModuleType:
    """A second copy of ``module``, imported while ``owner`` has no attribute ``name``; ``module`` is unchanged."""
    spec = importlib.util.spec_from_file_location(f"{module.__name__}_without_{name}", str(module.__file__))
    assert spec is not None and spec.loader is not None
    second = importlib.util.module_from_spec(spec)
    with pytest.MonkeyPatch.context() as patch:
        patch.delattr(owner, name)
        spec.loader.exec_module(second)
    return second
