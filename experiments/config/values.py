"""Types and ranges of single settings, which are checked in the same way for recipes, flags and Python."""

import os
import re
import sys
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal, get_args, get_origin

from annotated_types import Ge, Gt, Le, Lt
from pydantic import AfterValidator, BeforeValidator, ConfigDict, TypeAdapter, ValidationError

from fl_sim import registry
from fl_sim.errors import ConfigError


def _failures(text: str) -> str:
    share = re.fullmatch(r"raise|tolerate:(\d*\.?\d+|\d+\.)", text)
    if share is None or float(share[1] or 0) > 1:
        raise ValueError("must be raise, or tolerate:SHARE with a share from 0 to 1, such as tolerate:0.2")
    return text


def _device(text: str) -> str:
    if not re.fullmatch(r"cpu|cuda(:\d+)?", text):
        raise ValueError("must be cpu, cuda or cuda:N")
    return text


def _joined(names: object) -> object:
    return ",".join(map(str, names)) if isinstance(names, (list, tuple)) else names


def _set_metrics(text: str) -> str:
    from fl_sim.learning.sets.class_metrics import names_in  # imported here, because it imports torch

    try:
        return ",".join(names_in(text))
    except ConfigError as error:
        raise ValueError(str(error).partition(": ")[2]) from error


Whole = Annotated[int, Ge(0), Lt(2**63)]
Count = Annotated[int, Ge(1), Lt(2**63)]
NotNegative = Annotated[float, Ge(0)]
Share = Annotated[float, Ge(0), Lt(1)]
Minority = Annotated[float, Ge(0), Le(0.5)]
Strength = Annotated[float, Ge(0), Le(1)]
Seed = Annotated[int, Ge(0), Lt(2**63)]
Threads = Annotated[int, Ge(1), Le(1024)]
Target = Annotated[float, Gt(0), Le(1)] | None
Folder = Annotated[str, "a folder"] | None
"""Not ``str | None``, for which tyro would import typeguard, which takes a fifth of the time of ``run --help``."""
Label = Annotated[int, "a label"] | None
Device = Annotated[str, AfterValidator(_device)]
Failures = Annotated[str, AfterValidator(_failures)]
SetMetrics = Annotated[str, BeforeValidator(_joined), AfterValidator(_set_metrics)]


def plain(value: Any) -> Any:
    """A setting from Python as TOML would hold it: built-in types only.

    A path becomes text. Numbers, booleans and text of NumPy, and arrays and tensors without an axis, become Python's,
    with the value that they have: ``np.float32(0.1)`` is 0.10000000149011612. Tuples and ranges become lists. Tables
    and lists are converted within; all else (a model, a task, a strategy) is returned as it is.
    """
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    numpy: Any = sys.modules.get("numpy")  # not imported here: without it, no value is of NumPy
    if (numpy and isinstance(value, numpy.generic)) or getattr(value, "shape", None) == ():
        return float(value) if numpy and isinstance(value, numpy.longdouble) else value.item()
    if isinstance(value, Mapping):
        return {key: plain(part) for key, part in value.items()}
    if isinstance(value, (list, tuple, range)):
        return [plain(part) for part in value]
    return value


def check(key: str, hint: Any, value: Any, strict: bool = True) -> Any:
    """``value`` as the type ``hint`` with its constraints (text is read as a number unless ``strict``).

    Raises ConfigError that names the key, the value and what would be right; NaN and infinity are never right.
    """
    try:
        return TypeAdapter(hint, config=ConfigDict(strict=strict, allow_inf_nan=False)).validate_python(value)
    except ValidationError as error:
        wrong = [
            WANTED.get(e["type"]) or e["msg"].removeprefix("Value error, ").replace("Input should be", "must be")
            for e in error.errors()
        ]
        wrong += [with_unit(value, NUMBER in wrong)] if {WHOLE, NUMBER} & set(wrong) else []
        near = registry.nearest(str(value), [str(c) for c in _literals(hint)])
        raise ConfigError(f"{key} = {value!r}: {joined(wrong)}{near}") from error


WHOLE, NUMBER = "must be a whole number, such as 3", "must be a number, such as 0.1 or 1e-3"
WANTED = {
    **dict.fromkeys(("int_parsing", "int_type", "int_from_float", "int_parsing_size"), WHOLE),
    **dict.fromkeys(("float_parsing", "float_type"), NUMBER),
    "string_type": "must be text",
    "finite_number": "must be a finite number",
}
"""What a value must be, by pydantic's name of the error, where its own text does not say what to write."""


def joined(wrong: Sequence[str]) -> str:
    """What a value must be, of all types that it may have: ``must be a or b``, and a hint after a semicolon."""
    kinds = [text for text in dict.fromkeys(wrong) if text.startswith("must be ")]
    rest = [text for text in dict.fromkeys(wrong) if not text.startswith("must be ")]
    said = "must be " + " or ".join(text.removeprefix("must be ") for text in kinds) if kinds else ""
    return "; ".join(filter(None, [said, *rest]))


def with_unit(value: object, may_be_share: bool) -> str:
    """What to write instead of a number with a unit or a percent sign, such as ``5s`` or ``10%``; empty for others."""
    found = re.fullmatch(r"\s*([-+]?\d*\.?\d+)\s*(%|[A-Za-z]{1,5})\s*", value) if isinstance(value, str) else None
    if found is None:
        return ""
    share = f", such as {float(found[1]) / 100:g} for a share" if found[2] == "%" and may_be_share else ""
    return f"leave the unit out{share} (--help says in what it counts)"


def unknown_key(key: str, value: Any, known: list[str]) -> ConfigError:
    """The error for a key that does not exist, with a suggestion.

    It suggests a key with the same last part (``local.lr`` for ``lr``), else one of similar spelling.
    """
    same = [k for k in known if k.rpartition(".")[2] == key.rpartition(".")[2]]
    near = f" (did you mean {same[0]!r}?)" if same else registry.nearest(key, known)
    return ConfigError(f"{key} = {value!r}: unknown key{near}; python -m experiments.run --help lists all")


MOST_SEEDS = 100_000
"""Most seeds in one call: a range of more is a mistake, and would fill the memory."""


def seeds(value: Any) -> list[int]:
    """``3``, ``[0, 1]`` (or a tuple, range or array), ``"0,1,2"`` or ``"0..4"`` (both ends included).

    Raises ConfigError.
    """
    found: list[Any] = []
    most = f"give at most {MOST_SEEDS:,} to a call"
    value = plain(value.tolist() if hasattr(value, "tolist") else value)  # arrays, tensors, columns of tables
    for part in value.split(",") if isinstance(value, str) else value if isinstance(value, list) else [value]:
        ends = re.fullmatch(r"\s*(\d+)(?:\.\.(\d+))?\s*", part) if isinstance(part, str) else None
        several = range(int(ends[1]), int(ends[2] or ends[1]) + 1) if ends else [part]
        if ends and int(ends[2] or 0) - int(ends[1]) >= MOST_SEEDS - len(found):
            count = int(ends[2]) - int(ends[1]) + 1 + len(found)
            raise ConfigError(f"seed = {value!r}: names {count} seeds, each of which is a run; {most}")
        found += several
    if not found:
        raise ConfigError(f"seed = {value!r}: names no seed; give a whole number, or several as 0,1,2 or 0..4")
    found = [int(seed) if isinstance(seed, str) and re.fullmatch(r"\s*-\d+\s*", seed) else seed for seed in found]
    if len(set(map(str, found))) < len(found):
        raise ConfigError(f"seed = {value!r}: names a seed twice, which would count one run as two; give each once")
    for seed in found:
        if isinstance(seed, str):
            raise ConfigError(f"seed = {seed!r}: {WHOLE}, or several as 0,1,2 or 0..4")
    return [check("seed", Seed, seed) for seed in found]


def has_several_seeds(value: Any) -> bool:
    """Whether a value of ``seed`` stands for a list of runs: a list (also of one seed), or text that names several."""
    if isinstance(value, str):
        return len(seeds(value)) > 1
    return not isinstance(value, bool) and getattr(value, "shape", (1,)) != () and not isinstance(value, (int, float))


def _literals(hint: Any) -> list[Any]:
    if get_origin(hint) is Literal:
        return list(get_args(hint))
    return [value for part in get_args(hint) for value in _literals(part)]
