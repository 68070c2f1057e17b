"""What counts as a draw of an app's own from the operating system's randomness."""

import importlib
import sys
from pathlib import Path

import pytest

from experiments.apps.unkeyed_sources import RANDOM, watched

DRAWS = "import numpy\nnumpy.random.default_rng()\n"


@pytest.mark.parametrize(
    "own, library, found",
    [
        ("import some_library_that_draws\n", DRAWS, None),
        (f"import some_library_that_draws\n{DRAWS}", "", "own_app_module.py:3"),
        (
            "import some_library_that_draws\nsome_library_that_draws.f()\n",
            f"def f():\n  {DRAWS.splitlines()[0]}\n  {DRAWS.splitlines()[1]}\n",
            "own_app_module.py:2",
        ),
    ],
    ids=["a library at its import", "the app at its import", "a library that the app calls"],
)
def test_what_a_library_draws_while_it_is_imported_is_none(
    own: str, library: str, found: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    app = tmp_path / "app"
    app.mkdir()
    (app / "own_app_module.py").write_text(own)
    (tmp_path / "some_library_that_draws.py").write_text(library)
    for folder in (app, tmp_path):
        monkeypatch.syspath_prepend(folder)
    for name in ("own_app_module", "some_library_that_draws"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    seen: dict[str, str] = {}
    with watched(app, seen):
        importlib.import_module("own_app_module")
    assert seen.get(RANDOM) == found
