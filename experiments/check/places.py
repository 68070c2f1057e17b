"""File and line of what a check complains about: where an error was raised, or where a tensor was written into."""

import contextlib
import inspect
import os
import re
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from fl_sim.errors import RoundFailed
from fl_sim.kernels.in_place import Watched
from fl_sim.registry import HOME

PLACE = re.compile(r"\([^()]+, line \d+\)")
"""A place as the functions below write it."""
_OURS = tuple(str(Path(HOME) / package) + os.sep for package in ("fl_sim", "strategies", "clients", "experiments"))
_TORCH, _CHECKS = str(Path(torch.__file__).parent), str(Path(__file__).parent)


def _place(file: str | None, line: int | None) -> str:
    return f" ({Path(file or '?').name}, line {line})"


def defined_at(thing: Any) -> str:
    """File and first line of a function, class or method, in brackets; empty where it has none."""
    while hasattr(thing, "func"):  # functools.partial
        thing = thing.func
    if not (inspect.isclass(thing) or inspect.isroutine(thing)):
        thing = type(thing)
    try:
        return _place(inspect.getsourcefile(thing), inspect.getsourcelines(thing)[1])
    except (OSError, TypeError):  # made in a notebook or by exec
        return ""


def raised_at(error: BaseException) -> str:
    """File and line where an error was raised, in brackets."""
    last = traceback.extract_tb(error.__traceback__)[-1]
    return _place(last.filename, last.lineno)


def at_fault(error: BaseException, component: Any) -> str:
    """File and line that a failed check points to, in brackets; empty where its message already names one.

    The innermost line of the file that defines ``component`` in the error's traceback, or in the traceback of a client
    that the message holds; else where an error was raised. For an AssertionError, the failure of a client, and an error
    that this project's own code raises on what the component gave: the method whose result it is about, or where the
    component is defined.
    """
    if PLACE.search(str(error)):
        return ""
    own = re.search(r"\((.+), line", defined_at(component))
    name = own[1] if own else ""
    inside = re.findall(r'File ".*?([^/\\"]+)", line (\d+)', str(error))
    frames = [(Path(f.filename).name, f.lineno) for f in traceback.extract_tb(error.__traceback__)]
    lines = [int(line or 0) for file, line in (*frames, *inside) if file == name]
    if lines:
        return _place(name, lines[-1])
    own_failure = isinstance(error, AssertionError | RoundFailed)  # the latter is a client's, found by the simulator
    own_failure = own_failure or traceback.extract_tb(error.__traceback__)[-1].filename.startswith(_OURS)
    return _method_at(str(error), component) or (defined_at(component) if own_failure else "") or raised_at(error)


def _method_at(message: str, component: Any) -> str:
    """File and line of the method whose result a message is about; empty where it is about none of its own."""
    while hasattr(component, "func"):  # functools.partial
        component = component.func
    about = {"of local_update": "local_update", "its new state": "local_update", "of initial_state": "initial_state"}
    names = [name for words, name in about.items() if words in message and name in getattr(component, "__dict__", {})]
    return defined_at(getattr(component, names[0])) if names else ""


class _FirstWrite(TorchFunctionMode):
    """Notes the line outside of PyTorch that first writes into one of the tensors."""

    def __init__(self, tensors: Mapping[str, Tensor]) -> None:
        super().__init__()
        self.watched, self.place = Watched(tensors), ""

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: Any = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        if not self.place and self.watched.written:
            files = [(frame.filename, frame.lineno) for frame in inspect.stack(0)[1:]]
            file, line = next((f for f in files if not f[0].startswith(_TORCH)), ("", 0))
            if file and not file.startswith(_CHECKS):
                self.place = _place(file, line)
        return result


def written_by(function: Callable[[], object], given: Mapping[str, Tensor], component: Any) -> str:
    """``NAMES (FILE, line N)`` of the tensors ``given`` into which ``function()`` writes; empty where it writes none.

    Where a write is seen the function is called again, to find the line; ``component`` is named where none is found.
    """
    watched = Watched(given)
    function()
    names = sorted(watched.written)
    if not names:
        return ""
    with _FirstWrite(given) as first, contextlib.suppress(Exception):
        function()
    return ", ".join(names) + (first.place or defined_at(component))
