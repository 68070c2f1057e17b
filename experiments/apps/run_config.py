"""``--run-config "lr=0.2 num-server-rounds=5"``: values that override an app's own config, as Flower reads them."""

import re
import tomllib
from collections.abc import Mapping
from difflib import get_close_matches
from pathlib import Path

from flwr.app import UserConfig

from fl_sim.dotted import flatten
from fl_sim.errors import ConfigError
from fl_sim.logs.toml import read_toml

PAIR = re.compile(r"""(\S+?)=('[^']*'|"[^"]*"|\S+)""")
"""Flower's own form of one pair: no blank around the sign; a text in quotes, which may contain blanks."""


def read_run_config(text: str, known: Mapping[str, object]) -> UserConfig:
    """The values of pairs ``key=value``, or of the TOML file with this name.

    Raises ConfigError for text that is no such list, and for a key that the app's config lacks (``known``).
    """
    found = _from_file(text) if text.strip().endswith(".toml") and "=" not in text else _from_pairs(text)
    config: UserConfig = {}
    for key, value in found.items():
        if key not in known:
            near = get_close_matches(key, list(known), 1, 0.5)
            hint = f" (did you mean {near[0]}?)" if near else ""
            has = f"it has {', '.join(known) or 'none'}"
            raise ConfigError(f"run_config {key} = {value!r}: no key of the app's config{hint}; {has}")
        if not isinstance(value, (bool, int, float, str)):
            raise ConfigError(f"run_config {key} = {value!r}: is neither number, text, true nor false")
        config[key] = value
    return config


def _from_file(text: str) -> Mapping[str, object]:
    try:
        return flatten(read_toml(Path(text.strip()).expanduser()))
    except (ValueError, OSError) as error:
        raise ConfigError(f"run_config = {text!r}: cannot be read ({error})") from error


def _from_pairs(text: str) -> Mapping[str, object]:
    form = """give pairs as in 'lr=0.2 rounds=5 name="a text in quotes" flag=true'"""
    if rest := PAIR.sub("", text).strip():
        raise ConfigError(f"run_config = {text!r}: {rest!r} is no pair key=value; {form}")
    values: dict[str, object] = {}
    for key, value in PAIR.findall(text):
        if key in values:
            raise ConfigError(f"run_config = {text!r}: {key} is given twice; give it once")
        try:
            values[key] = tomllib.loads(f"value = {value}")["value"]
        except tomllib.TOMLDecodeError as error:
            raise ConfigError(f"run_config = {text!r}: {key}={value} cannot be read; {form}") from error
    return values
