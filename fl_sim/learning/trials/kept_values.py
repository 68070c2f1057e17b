"""What a loss keeps between calls: numbers, texts and tensors in its attributes and in the variables around it."""

from typing import Any

from torch import Tensor

from fl_sim.kernels.in_place import version


def kept_by(function: Any) -> dict[str, object]:
    """The values by name, in a form that shows by ``==`` whether a call changed them; lists and dicts by their length.

    Tensors stand for their identity and their count of in-place writes.
    """
    owner = getattr(function, "func", function)  # of functools.partial
    owner = getattr(owner, "__self__", owner)  # of a method
    code, cells = getattr(owner, "__code__", None), getattr(owner, "__closure__", None) or ()
    around = dict(zip(code.co_freevars, cells, strict=True)) if code is not None else {}
    values = {**getattr(owner, "__dict__", {}), **{name: _content(cell) for name, cell in around.items()}}
    return {name: _form(value) for name, value in values.items()}


def _content(cell: Any) -> object:
    try:
        return cell.cell_contents
    except ValueError:  # the variable has no value yet
        return None


def _form(value: object) -> object:
    if isinstance(value, bool | int | float | str | None):
        return value
    if isinstance(value, Tensor):
        return id(value), version(value)
    return len(value) if isinstance(value, list | dict | set) else None
