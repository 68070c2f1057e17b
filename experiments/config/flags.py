"""The flags of a command line, from the dataclasses and the parameters of the chosen components, read by tyro."""

import contextlib
import functools
import io
from collections.abc import Sequence
from dataclasses import dataclass, field, fields, make_dataclass
from typing import Annotated, Any, NoReturn, Union, get_args, get_origin, get_type_hints

import tyro

from experiments.config import recipe_files
from experiments.config.choices import PACKAGES, Choice, choose, load, offered, parameters
from experiments.config.expand import expand
from experiments.config.nesting import Settings
from experiments.config.offered.commands_with_flags import Command
from experiments.config.schema import Config
from experiments.config.strategy_tables import is_of_one, names_in, owner_of
from experiments.config.tables import SECTIONS
from experiments.config.values import check, unknown_key
from fl_sim.errors import ConfigError


@dataclass(frozen=True)
class Options:
    """Options of a call that are no settings of a run."""

    app: str = ""
    """Folder of a Flower app (with its pyproject.toml) to run instead of a strategy of this project."""
    run_config: str = ""
    """With --app: KEY=VALUE KEY=VALUE..., or a .toml file, overrides the app's own config, as flwr run does."""
    dry_run: bool = False
    """Print the plan and stop."""
    resume: str = ""
    """A run folder: continue its run from the last checkpoint; only --rounds and a few others may change."""
    trust_pickle: bool = False
    """With --resume or --fork: read a checkpoint's pickled part though this user's key did not sign it."""
    quiet: bool = False
    """Print no progress and no table."""
    json: bool = False
    """Print the summary as one JSON object, as the last line of stdout."""
    track: str = ""
    """tensorboard, mlflow, wandb (several with commas): each round's numbers go there too, in the run's folder."""
    callback: str = ""
    """module:Class (several with commas): a callback of your own, made without arguments, as of run(callbacks=)."""
    vmap_over: str = ""
    """KEY=A,B;KEY=C,D (floats, such as local.lr): train the runs of all combinations and seeds as one batch."""


CONFIG = (tyro.conf.FlagConversionOff,)
"""How tyro reads flags: a switch has a value, True or False."""
Flag = tuple[str, str | None]
"""A dotted key and the text of its value; None where the flag has no value."""


def no_value(key: str) -> ConfigError:
    """The error for a flag that needs a value and has none."""
    return ConfigError(f"{key}: has no value; give one, as in --{key} VALUE")


def flag_schema(settings: Settings) -> Any:
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
    usage += " For one of several: --strategy.NAME.PARAMETER." if several else ""
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


def values_of(schema: Any, flags: Sequence[Flag]) -> Settings:
    """The flags' values by dotted key. Raises ConfigError for the first that is unknown or cannot be read."""
    hints = _hints(type(schema))
    values, rest, words = dict[str, Any](), list[Flag](), list[str]()
    for key, text in flags:
        if key in hints or not is_of_one(key):
            rest.append((key, text))
        else:
            values |= _of_one(key.removeprefix("strategy."), text, names_in("strategy", schema.strategy.name))
    for key, text in rest:
        if key not in hints:
            kind, _, parameter = key.partition(".")
            if kind in PACKAGES:
                choose(kind, {"name": getattr(schema, kind).name, parameter: text})
            raise unknown_key(key, text, list(hints))
        words.append(_word(key, hints[key], text))
    try:
        read = run_tyro(schema, words)
    except SystemExit:
        for (key, text), word in zip(rest, words, strict=True):
            try:
                run_tyro(schema, [word])
            except SystemExit:
                raise _unreadable(key, hints[key], text) from None
        raise
    return {**{key: functools.reduce(getattr, key.split("."), read) for key, _ in rest}, **values}


def _word(key: str, hint: Any, text: str | None) -> str:
    """A flag as one word for tyro. Raises ConfigError where it needs a value and has none."""
    if text is None and hint is not bool:
        raise no_value(key)
    inner = get_args(hint)[0] if get_origin(hint) is Annotated else hint
    optional = bool in get_args(inner) and text in ("true", "false")  # such as bool | None
    return f"--{key}={(text or 'true').capitalize() if hint is bool or optional else text}"


def _unreadable(key: str, hint: Any, text: str | None) -> ConfigError:
    """The error for a value that tyro cannot read as the type ``hint``."""
    try:
        check(key, hint, text, strict=False)
    except ConfigError as error:
        return error
    return ConfigError(f"{key} = {text!r}: cannot be read; see --help")


def _of_one(key: str, text: str | None, names: list[str]) -> Settings:
    """The dotted key and the value of a flag ``strategy.NAME.PARAMETER``, which the schema does not have."""
    owner, parameter = owner_of(key, text, names), key.rpartition(".")[2]
    known = parameters("strategy", load("strategy", owner))
    if parameter not in known:
        choose("strategy", {"name": owner, parameter: text})
    key, hint = f"strategy.{owner}.{parameter}", known[parameter].hint
    _word(key, hint, text)
    try:
        return {key: run_tyro(make_dataclass("One", [("value", hint)]), [_word("value", hint, text)]).value}
    except SystemExit:
        raise _unreadable(key, hint, text) from None


def _hints(cls: Any, prefix: str = "") -> dict[str, Any]:
    """The type of each flag by dotted key."""
    found: dict[str, Any] = {}
    for key, hint in get_type_hints(cls, include_extras=True).items():
        if not prefix and key in (*PACKAGES, *SECTIONS):
            found.update(_hints(hint, f"{key}."))
        else:
            found[prefix + key] = bool if get_origin(hint) is Annotated and get_args(hint)[0] is bool else hint
    return {key: hint for key, hint in found.items() if key != "recipe"}


def run_tyro(schema: Any, words: Sequence[str]) -> Any:
    """Read ``words`` into the schema, a dataclass or an object of one, whose values are then the defaults.

    tyro's own error text is dropped: the caller reports the error in one line.
    """
    cls, default = (schema, {}) if isinstance(schema, type) else (type(schema), {"default": schema})
    with contextlib.redirect_stderr(io.StringIO()):
        return tyro.cli(cls, args=words, config=CONFIG, use_underscores=True, **default)


def show_help(schema: Any, command: Command) -> NoReturn:
    """Print the flags of ``schema`` (an object of ``flag_schema``), with its values as defaults; raises SystemExit(0).

    Flags that the command does not show are read nevertheless.
    """
    hidden = [f.name for f in fields(schema) if command.shows and f.name not in command.shows]
    hints = get_type_hints(type(schema), include_extras=True) if hidden else {}
    rows = [(name, Annotated[hints[name], tyro.conf.Suppress], field(default=getattr(schema, name))) for name in hidden]
    cls = make_dataclass("Flags", rows, bases=(type(schema),), frozen=True)
    default = cls(**{f.name: getattr(schema, f.name) for f in fields(schema)})
    prog = f"python -m experiments.{command.name}"
    tyro.cli(
        cls,
        prog=prog,
        description=command.about,
        args=["--help"],
        config=CONFIG,
        use_underscores=True,
        default=default,
    )
    raise AssertionError("tyro ends after it has shown the help")
