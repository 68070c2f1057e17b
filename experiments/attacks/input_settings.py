"""The bad inputs that follow from the list of settings: each gets values of wrong types and out of range."""

import re
from collections.abc import Iterator
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

from experiments.attacks.input_cases import FEW, FLAGS, TOML, Input
from experiments.attacks.input_files import files
from experiments.attacks.input_objects import DATA, MODELS
from experiments.config.choices import PACKAGES, load, offered, parameters
from experiments.config.schema import Config
from experiments.config.tables import SECTIONS

FLAG_VALUES = {int: ("nan", "1.5"), float: ("inf", "0,5"), bool: ("maybe",)}
"""Texts of flags that are no value of a type."""
PYTHON_VALUES: dict[Any, tuple[str, ...]] = {
    int: ("True", "'3'", "3.5", "[1]", "-10**30", "float('nan')"),
    float: ("True", "'0.1'", "[0.1]", "-float('inf')", "float('nan')", "10**400"),
    bool: ("1", "'true'"),
    str: ("3", "[1]", "True", "{'a': 1}"),
    Literal: ("3", "'nonsense'", "[1]"),
}
"""Values from Python, and those of a recipe, that are no value of a type."""
FREE = {"seed", "set_metrics", "fork", "partition.seed"}
"""Settings whose text, list or None may mean something: the catalogue has their bad values by hand."""


def hints() -> dict[str, tuple[Any, dict[str, str]]]:
    """Dotted key -> (its type, the names of components that have it) of all settings but the components' names."""
    found: dict[str, tuple[Any, dict[str, str]]] = {}
    for key, hint in get_type_hints(Config, include_extras=True).items():
        if key in PACKAGES or key in FREE:
            continue
        if key in SECTIONS:
            own = get_type_hints(SECTIONS[key], include_extras=True)
            found |= {f"{key}.{name}": (part, {}) for name, part in own.items()}
        else:
            found[key] = hint, {}
    for kind in PACKAGES:
        for name in sorted(offered(kind), key=lambda name: name != "digits"):
            for key, parameter in parameters(kind, load(kind, name)).items():
                if f"{kind}.{key}" not in FREE:
                    found.setdefault(f"{kind}.{key}", (parameter.hint, {kind: name}))
    return found


def base(hint: Any) -> Any:
    """int, float, bool, str or Literal: of a type with constraints, and of one that may be None."""
    if get_origin(hint) is Annotated:
        return base(get_args(hint)[0])
    if get_origin(hint) in (Union, UnionType):
        return next(kind for kind in map(base, get_args(hint)) if kind is not NoneType)
    return Literal if get_origin(hint) is Literal else hint


def generated() -> Iterator[Input]:
    """Wrong values of every setting, by flags, from Python and in recipes, and every name misspelt."""
    for key, (hint, needs) in hints().items():
        kind = base(hint)
        few = FEW
        for name in needs:
            few = without(few, name)
        words = "".join(f" --{name} {value}" for name, value in needs.items())
        engine = " --engine ray" * key.startswith("ray.")
        for text in FLAG_VALUES.get(kind, ()):
            own = without(few, key)
            yield Input(f"--{key} {text}", f"{re.escape(key)} = '?{text}", f"{own}{words}{engine} --{key}={text}")
        for text in PYTHON_VALUES.get(kind, ()):
            given = {**needs, **({"engine": "ray"} if engine else {})}
            pairs = ", ".join(f"{name!r}: {value!r}" for name, value in given.items())
            says = re.escape(f"{key} = {eval(text)!r}"[:200])
            yield Input(f"run({key}={text})", says, code=f"few(**{{{pairs}{', ' * bool(pairs)}{key!r}: {text}}})")
        last = key.rpartition(".")[2]
        wrong = key[:-1] if len(last) > 3 else f"{key}{key[-1]}"
        yield Input(f"--{wrong} 1", f"{re.escape(wrong)} = '1': ", f"{few}{words} --{wrong} 1")


def without(words: str, key: str) -> str:
    """A command line without one flag and its value."""
    return re.sub(rf" --{re.escape(key)} \S+", "", words)


def catalogue() -> list[Input]:
    """All bad inputs."""
    found = list(generated())
    for words, says in FLAGS.items():
        keys = re.findall(r"--([\w.]+)", words)
        own = FEW
        for key in keys:
            own = without(own, key)
        found.append(Input(f"run {words}", says, f"{'run' if not words.startswith('-') else own} {words}"))
    for number, (lines, says) in enumerate(TOML.items()):
        name = repr(lines if len(lines) < 60 else f"{lines[:20]}...{len(lines)} characters")
        code = f"Path('bad.toml').write_text({lines!r}, errors='surrogateescape')"
        found.append(
            Input(
                f"TOML {number}: {name}",
                says,
                "run bad.toml --quiet",
                code,
            )
        )
    found += [Input(f"from_arrays({given})", says, code=f"data({given})") for given, says in DATA.items()]
    found += [Input(f"model {given}", says, code=f"model({given})") for given, says in MODELS.items()]
    return [*found, *files()]
