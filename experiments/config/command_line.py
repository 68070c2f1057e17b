"""``python -m experiments.run [RECIPE] [--key value ...]``: flags and help from the dataclasses, read by tyro.

This file adds to tyro that the recipe is read before the flags (its values are their defaults), that the names of
task, partition, model and strategy are read before their parameters, and that each error is one line.
"""

from collections.abc import Collection, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import Any, get_type_hints

from experiments.apps.stored_apps import SIGNATURE, check_own
from experiments.config import recipe_files
from experiments.config.axes import over
from experiments.config.choices import PACKAGES
from experiments.config.flags import Flag, Options, flag_schema, no_value, show_help, values_of
from experiments.config.nesting import nested
from experiments.config.offered.commands_with_flags import RUN, Command
from experiments.config.offered.outlines import outlined
from experiments.config.recipe_files import fork_parts, read_folder
from experiments.config.schema import Config
from experiments.config.values import check
from fl_sim.dotted import flatten
from fl_sim.errors import ConfigError


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


PRESENTATION = {"dry_run", "quiet", "json", "out"}
"""Flags that change the output, not the run: a call with these alone runs the quickstart, as does an empty call."""
MAY_BE_EMPTY = {"set_metrics"}
"""Flags whose value may be empty text: no set metrics, though the recipe has some."""
SWITCHES = {key for cls in (Options, Config) for key, hint in get_type_hints(cls).items() if hint is bool}
"""Flags that need no value."""

NAMES = [f"{kind}.name" for kind in PACKAGES]
"""Dotted keys of the components' names."""


def parse(argv: Sequence[str], command: Command = RUN) -> Invocation:
    """Read a command line (without the program's name), of ``run`` or of another command that takes its flags.

    Raises ConfigError for bad input, and SystemExit(0) after printing help.
    """
    wants_help = any(word in ("-h", "--help") for word in argv)
    recipe, flags = _split([word for word in argv if word not in ("-h", "--help")])
    _check_once(flags)
    if not recipe and not wants_help and not {key for key, _ in flags} - PRESENTATION:
        recipe = "quickstart"
    folder, other, axes = (dict(flags).get(name) or "" for name in ("resume", "fork", "vmap_over"))
    if folder and (recipe or other or axes):
        alien = recipe or ("--fork" if other else "--vmap_over")
        raise ConfigError(f"resume = {folder!r}: one run goes on, with its own config; leave {alien!r} out")
    if folder or (other and not recipe):
        recipe = read_folder("resume", folder) if folder else read_folder("fork", fork_parts(other)[0])
    if "trust_pickle" in {key for key, _ in flags} and not (folder or other):
        raise ConfigError("trust_pickle = true: is for a checkpoint; give it with --resume RUN or --fork RUN@N")
    with outlined() if wants_help else nullcontext():
        base = recipe_files.read(recipe) if recipe else {}
        app, app_config = check("app", str, base.pop("app", "")), base.pop("app_config", {})
        signed = base.pop(SIGNATURE, "")
        names = nested({key: text for key, text in flags if key in NAMES})
        schema = flag_schema(recipe_files.overlay(base, names))
        if wants_help:
            show_help(schema, command)
    values = values_of(schema, flags)
    options = {key: values.pop(key) for key in get_type_hints(Options) if key in values}
    configs = over(base, nested(values), axes)
    if folder and (app or len(configs) > 1):
        why = f"it is the run of a Flower app ({app}), which cannot go on; begin a new one"
        if not app:
            why = f"one run goes on, but the strategies and seeds given make {len(configs)}; leave them out"
        raise ConfigError(f"resume = {folder!r}: {why}")
    if app and not options.get("app"):
        check_own(recipe, app, app_config, signed)
    check_asked(options, app or options.get("app"), configs[0].engine)
    if options.get("run_config") and not (app or options.get("app")):
        raise ConfigError(f"run_config = {options['run_config']!r}: is the config of a Flower app; give it with --app")
    if app and axes:
        raise ConfigError(f"vmap_over = {axes!r}: means nothing to a Flower app; leave it out")
    return Invocation(
        **{"app": app, **options},
        recipe=recipe,
        configs=configs,
        explicit=sorted({*flatten(base), *values}),
        app_config=app_config,
    )


def check_asked(options: Mapping[str, Any], app: object, engine: str) -> None:
    """Raise ConfigError for trackers and callbacks that are not there, and where a run could not call them."""
    for key in ("track", "callback"):
        if (value := options.get(key)) and (app or engine == "flower"):
            what = "a Flower app" if app else "Flower's own simulation"
            raise ConfigError(f"{key} = {value!r}: {what} calls none of this project's callbacks; leave it out")
    from experiments.trackers.asked import asked  # imported here, because it imports torch and Flower

    asked(options.get("track", ""), options.get("callback", ""))


def _split(argv: Sequence[str]) -> tuple[str, list[Flag]]:
    """Split a command line into the recipe (empty if there is none) and the flags.

    Keys of flags are dotted and have underscores: ``--dry-run`` is ``dry_run``, ``--strategy X`` is ``strategy.name``.
    """
    recipe, flags, words = "", [], list(argv)
    while words:
        word = words.pop(0)
        if not word.strip():
            raise ConfigError(f"{word!r}: an empty word; an unset variable of the shell? Leave it out")
        if not word.startswith("--"):
            if recipe or word.startswith("-"):
                known = f", RECIPE is {recipe!r}" * bool(recipe)
                known += f" (did you mean -{word}?)" * word.startswith("-")
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
        if value is not None and not value.strip() and key not in MAY_BE_EMPTY:
            raise ConfigError(
                f"{key} = {value!r}: is empty; an unset variable of the shell? Give a value, or leave it out"
            )
        flags.append((key, value))
    return recipe, flags


def _check_once(flags: Sequence[Flag]) -> None:
    """Raise ConfigError for a flag that is given twice, since only one of its values could act."""
    seen: dict[str, str | None] = {}
    for key, text in flags:
        if key in seen:
            first = f" (first {seen[key]!r})" if text != seen[key] else ""
            raise ConfigError(f"{key} = {text or 'true'!r}: is given twice{first}; give it once")
        seen[key] = text
