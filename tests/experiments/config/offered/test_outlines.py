"""What is read from source files is what the imported modules say: names, texts, settings with types and defaults."""

import importlib
import inspect
import sys
from pathlib import Path
from typing import Any

import pytest

from experiments.config.choices import PACKAGES, offered, parameters
from experiments.config.offered import outlines
from experiments.config.offered.outlines import outline, outlined
from fl_sim import registry

KINDS = {**PACKAGES, "pool": "strategies.pools"}
FACTS = ("refuses", "asynchronous", "needs_validation", "recorded", "default_model", "step", "classes", "offered_as")
"""Attributes by which a component decides what a config needs, or what its help shows."""


@pytest.mark.parametrize("kind", KINDS)
def test_an_outline_says_what_the_component_says(kind: str) -> None:
    with outlined():
        read = registry.names(KINDS[kind], kind)
    real = registry.names(KINDS[kind], kind)
    assert list(read) == list(real)
    for name, component in real.items():
        assert read[name] is not component, f"{name} cannot be read from its source: its help takes seconds"
        assert inspect.getdoc(read[name]) == inspect.getdoc(component), name
        assert {key: getattr(read[name], key, None) for key in FACTS} == {
            key: getattr(component, key, None) for key in FACTS
        }, name
        if kind in PACKAGES:  # hints, defaults, help texts, and their order
            assert list(parameters(kind, read[name]).items()) == list(parameters(kind, component).items()), name
            names = [list(inspect.signature(c).parameters) for c in (read[name], component)]  # type: ignore[arg-type]
            assert names[0] == names[1], name


SOURCE = '''"""A module."""
from dataclasses import dataclass
from typing import Annotated, ClassVar
import elsewhere
from annotated_types import Gt
from elsewhere import Base
from fl_sim.registry import offer
LEAST, MOST = 1, 2 ** 3

@dataclass
class Root(Base):
    kind: ClassVar[str] = "strategy"
    refuses = ("a",)
    net: elsewhere.Net | None = None

@dataclass(frozen=True)
class Mine(Root):
    """Mine."""
    refuses = (*Root.refuses, "b")
    rate: Annotated[float, Gt(LEAST)] = MOST / 2
    """The rate."""
    def method(self): return elsewhere.work()

@offer("task", default_model="lr")
def make(path: str = "x", *, size: int = MOST, **more: float):
    """Make."""
    raise RuntimeError
'''


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the package ``strategies``, in the place of this project's."""
    monkeypatch.setattr(outlines, "ROOT", str(tmp_path))
    (tmp_path / "strategies").mkdir()
    return tmp_path / "strategies"


def test_a_source_is_read_and_not_run(place: Path) -> None:
    (place / "mine1.py").write_text(SOURCE.replace("@dataclass(frozen=True)", "@dataclass"))
    module = outline("strategies.mine1")
    found = registry.offered(module, "strategy")
    assert list(found) == ["mine1"] and "elsewhere" not in sys.modules
    mine: Any = found["mine1"]
    assert mine.refuses == ("a", "b") and inspect.getdoc(mine) == "Mine."
    [(name, rate)] = parameters("strategy", mine).items()
    assert (name, rate.default, rate.help) == ("rate", 4.0, "The rate.")
    task: Any = registry.offered(module, "task")["make"]
    assert {k: p.default for k, p in registry.parameters(task).items()} == {"path": "x", "size": 8}
    assert task.default_model == "lr"
    with pytest.raises(TypeError, match="cannot be called"):
        task()


@pytest.mark.parametrize(
    "source",
    [
        "from elsewhere import K\n@offer('task')\ndef make(n: int = K): ...",
        "from elsewhere import Positive\n@offer('task')\ndef make(n: Positive = 3): ...",
        "from strategies import gone\nclass Mine(gone.Base): ...",
        "from .gone import Base\nclass Mine(Base): ...",
    ],
)
def test_what_cannot_be_read_is_imported(source: str, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib, "import_module", lambda name: f"imported {name}")
    (place / "gone.py").write_text("")
    name = f"mine{abs(hash(source))}"
    (place / f"{name}.py").write_text(f"from fl_sim.registry import offer\n{source}")
    monkeypatch.setattr(
        outlines, "_imported", lambda m, n, real=outlines._imported: registry.offer if n == "offer" else real(m, n)
    )
    assert outline(f"strategies.{name}") == f"imported strategies.{name}"


def test_outside_of_outlined_components_are_imported() -> None:
    with outlined():
        assert offered("strategy")["fedprox"] is outline("strategies.fedprox").FedProx
    assert offered("strategy")["fedprox"] is sys.modules["strategies.fedprox"].FedProx
