"""``python -m experiments.run [RECIPE] [--key value ...]``: flags and help from the dataclasses, read by tyro.

This file adds to tyro that the recipe is read before the flags (its values are their defaults), that the names of
task, partition, model and strategy are read before their parameters, and that each error is one line.
"""

import contextlib
import functools
import io
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, fields, make_dataclass
from typing import Annotated, Any, Union, get_args, get_origin, get_type_hints

import tyro

from experiments.config import recipe_files
from experiments.config.axes import over
from experiments.config.choices import PACKAGES, Choice, choose, offered, parameters
from experiments.config.nesting import Settings, nested
from experiments.config.recipe_files import read_folder
from experiments.config.schema import Config, expand
from experiments.config.tables import SECTIONS
from experiments.config.values import check, unknown_key
from fl_sim.dotted import flatten
from fl_sim.errors import ConfigError


@dataclass(frozen=True)
class Options:
    """Options of a call that are no settings of a run."""

    app: str = ""
    """Folder of a Flower app (with its pyproject.toml) to run instead of a strategy of this project."""
    dry_run: bool = False
    """Print the plan and stop."""
    resume: str = ""
    """A run folder: continue its run from the last checkpoint; only --rounds and a few others may change."""
    quiet: bool = False
    """Print no progress and no table."""
    json: bool = False
    """Print the summary as one JSON object, as the last line of stdout."""
    vmap_over: str = ""
    """KEY=A,B;KEY=C,D (floats, such as local.lr): train the runs of all combinations and seeds as one batch."""


@dataclass(frozen=True)
class Invocation(Options):
    """One call of ``experiments.run``."""

    recipe: str = ""
    """The recipe's name or path; empty where there is none."""
    configs: Sequence[Config] = ()
    """One config for each run: all seeds of the first strategy, then those of the next."""
    explicit: Collection[str] = ()
    """The dotted keys of settings that flags or the recipe set; options are left out."""
    app_config: Mapping[str, Any] = field(default_factory=dict)
    """The app's own config as the config.toml of an earlier run recorded it; empty: that of its pyproject.toml."""


PRESENTATION = {"dry_run", "quiet", "json"}
"""Options that change the output, not the run: a call with these alone runs the quickstart, as does an empty call."""
SWITCHES = {key for cls in (Options, Config) for key, hint in get_type_hints(cls).items() if hint is bool}
"""Flags that need no value."""

NAMES = [f"{kind}.name" for kind in PACKAGES]
"""Dotted keys of the components' names."""
Flag = tuple[str, str | None]
"""A dotted key and the text of its value; None where the flag has no value."""


def parse(argv: Sequence[str]) -> Invocation:
    """Read a command line (without the program's name).

    Raises ConfigError for bad input, and SystemExit(0) after printing help.
    """
    wants_help = any(word in ("-h", "--help") for word in argv)
    recipe, flags = _split([word for word in argv if word not in ("-h", "--help")])
    if not recipe and not wants_help and not {key for key, _ in flags} - PRESENTATION:
        recipe = "quickstart"
    folder, other = (next((text or "" for key, text in flags if key == name), "") for name in ("resume", "fork"))
    if folder and (recipe or other):
        raise ConfigError(f"resume = {folder!r}: goes on with its own config; leave {recipe or '--fork'!r} out")
    if folder or (other and not recipe):
        recipe = read_folder("resume", folder) if folder else read_folder("fork", other.partition("@")[0])
    base = recipe_files.read(recipe) if recipe else {}
    app, app_config = check("app", str, base.pop("app", "")), base.pop("app_config", {})
    names = nested({key: text for key, text in flags if key in NAMES})
    schema = _schema(recipe_files.overlay(base, names))
    if wants_help:
        _tyro(schema, ["--help"])
    values = _values(schema, flags)
    options = {key: values.pop(key) for key in get_type_hints(Options) if key in values}
    return Invocation(
        **{"app": app, **options},
        recipe=recipe,
        configs=over(base, nested(values), options.get("vmap_over", "")),
        explicit=sorted({*flatten(base), *values}),
        app_config=app_config,
    )


def _split(argv: Sequence[str]) -> tuple[str, list[Flag]]:
    """Split a command line into the recipe (empty if there is none) and the flags.

    Keys of flags are dotted and have underscores: ``--dry-run`` is ``dry_run``, ``--strategy X`` is ``strategy.name``.
    """
    recipe, flags, words = "", [], list(argv)
    while words:
        word = words.pop(0)
        if not word.startswith("--"):
            if recipe or word.startswith("-"):
                known = f", RECIPE is {recipe!r}" * bool(recipe)
                raise ConfigError(f"{word!r}: unexpected; a call is [RECIPE] [--key value ...]{known}")
            recipe = word
            continue
        key, equals, text = word[2:].partition("=")
        key = key.replace("-", "_")
        value = text if equals else None
        follows = not equals and bool(words) and not words[0].startswith("--")
        if follows and (key not in SWITCHES or words[0].lower() in ("true", "false")):
            value = words.pop(0)
        key = f"{key}.name" if key in PACKAGES else key
        if value is None and key in NAMES:
            raise no_value(key)
        flags.append((key, value))
    return recipe, flags


def no_value(key: str) -> ConfigError:
    """The error for a flag that needs a value and has none."""
    return ConfigError(f"{key}: has no value; give one, as in --{key} VALUE")


def _schema(settings: Settings) -> Any:
    """A dataclass object with one field for each flag, from which tyro reads flags, defaults and help.

    The values of its fields are those of ``settings``.
    """
    configs = expand(settings, explicit={}, plan=False)
    tables: list[tuple[str, Any, Any]] = []
    for kind in PACKAGES:
        choices = list({c.name: c for c in (getattr(config, kind) for config in configs)}.values())
        table = _component_flags(kind, choices)
        tables.append((kind, table, field(default_factory=table)))
    names = ", ".join(recipe_files.names())
    which = f"One of {names}, or the path of a .toml file; its settings are the defaults of the flags."
    position = Annotated[tyro.conf.Positional[str], tyro.conf.arg(help=which, metavar="[RECIPE]")]
    several = ("seed", str, field(default=",".join(dict.fromkeys(str(c.seed) for c in configs))))
    flags = make_dataclass(
        "Flags", [*tables, several, ("recipe", position, field(default=""))], bases=(Options, Config), frozen=True
    )
    return flags(**{f.name: getattr(configs[0], f.name) for f in fields(Config) if f.name not in (*PACKAGES, "seed")})


def _component_flags(kind: str, choices: Sequence[Choice]) -> Any:
    """A dataclass of the flags of one kind of component: the name, and the parameters of the chosen components."""
    several = "; several as a,b" if kind == "strategy" else ""
    names, usage = ", ".join(offered(kind)), f"Short: --{kind}. Its own parameters: --{kind} NAME --help."
    which = f"{names} or package.module:Name{several}. {usage}"
    found: dict[str, Any] = {}
    for choice in choices:
        for key, p in parameters(kind, choice.component).items():
            hint, value, text = found.get(key, (p.hint, choice.params[key], p.help))
            found[key] = (Union[hint, p.hint], value, text)  # noqa: UP007 - the types are in variables
    rows = [
        (key, Annotated[hint, tyro.conf.arg(help=text)], field(default=value))
        for key, (hint, value, text) in found.items()
    ]
    name = (
        "name",
        Annotated[str, tyro.conf.arg(help=which)],
        field(default=",".join(choice.name for choice in choices)),
    )
    return make_dataclass(kind, [name, *rows], frozen=True)


def _values(schema: Any, flags: Sequence[Flag]) -> Settings:
    """The flags' values by dotted key. Raises ConfigError for the first that is unknown or cannot be read."""
    hints = _hints(type(schema))
    words = []
    for key, text in flags:
        if key not in hints:
            kind, _, parameter = key.partition(".")
            if kind in PACKAGES:
                choose(kind, {"name": getattr(schema, kind).name, parameter: text})
            raise unknown_key(key, text, list(hints))
        if text is None and hints[key] is not bool:
            raise no_value(key)
        words.append(f"--{key}={(text or 'true').capitalize() if hints[key] is bool else text}")
    try:
        read = _tyro(schema, words)
    except SystemExit:
        for (key, text), word in zip(flags, words, strict=True):
            try:
                _tyro(schema, [word])
            except SystemExit:
                check(key, hints[key], text, strict=False)
                raise ConfigError(f"{key} = {text!r}: cannot be read; see --help") from None
        raise
    return {key: functools.reduce(getattr, key.split("."), read) for key, _ in flags}


def _hints(cls: Any, prefix: str = "") -> dict[str, Any]:
    """The type of each flag by dotted key."""
    found: dict[str, Any] = {}
    for key, hint in get_type_hints(cls, include_extras=True).items():
        if not prefix and key in (*PACKAGES, *SECTIONS):
            found.update(_hints(hint, f"{key}."))
        else:
            found[prefix + key] = bool if get_origin(hint) is Annotated and get_args(hint)[0] is bool else hint
    return {key: hint for key, hint in found.items() if key != "recipe"}


def _tyro(schema: Any, words: Sequence[str]) -> Any:
    """Read ``words`` into the schema. tyro's own error text is dropped: the caller reports the error in one line."""
    errors = contextlib.nullcontext() if "--help" in words else contextlib.redirect_stderr(io.StringIO())
    config = (tyro.conf.FlagConversionOff,)
    with errors:
        return tyro.cli(
            type(schema),
            prog="python -m experiments.run",
            default=schema,
            args=words,
            config=config,
            use_underscores=True,
        )
