"""An object whose pickle runs code when it is read."""

from pathlib import Path
from typing import Any


class Bomb:
    """Its unpickling creates a file."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def __reduce__(self) -> tuple[Any, tuple[Any, ...]]:
        return Path.touch, (self.file,)
