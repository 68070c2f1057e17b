"""Reading TOML files: configs, recipes and the pyproject.toml of Flower apps."""

import codecs
import tomllib
from pathlib import Path
from typing import Any

_UTF16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)

MOST_TABLES = 20
"""Most levels of tables and arrays in a file. No config has more than four."""


def read_toml(path: Path) -> dict[str, Any]:
    """The content of a TOML file in UTF-8, with or without a byte-order mark (some editors on Windows write one).

    Raises ValueError, which does not name the file, for another encoding and for text that is no TOML.
    """
    data = path.read_bytes()
    if data.startswith(_UTF16):
        raise ValueError("it is encoded as UTF-16, but TOML is UTF-8; save it as UTF-8 (PowerShell: -Encoding utf8)")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        raise ValueError(f"line {line} is not UTF-8 (byte 0x{data[error.start]:02x}); save it as UTF-8") from error
    try:
        read = tomllib.loads(text.replace("\r\n", "\n").replace("\r", "\n"))
        return {key: as_deep_as(value, MOST_TABLES) for key, value in read.items()}
    except RecursionError:
        raise ValueError(f"its tables or arrays are nested too deeply; at most {MOST_TABLES} levels are read") from None


def as_deep_as(value: Any, levels: int) -> Any:
    """``value``, if tables and arrays are nested in it at most ``levels`` deep. Raises RecursionError otherwise."""
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    for part in inner:
        if levels < 1:
            raise RecursionError
        as_deep_as(part, levels - 1)
    return value
