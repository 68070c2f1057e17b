"""Reading TOML files: configs, recipes and the pyproject.toml of Flower apps."""

import codecs
import tomllib
from pathlib import Path
from typing import Any

_UTF16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)


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
    return tomllib.loads(text.replace("\r\n", "\n").replace("\r", "\n"))
