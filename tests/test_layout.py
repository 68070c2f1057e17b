"""The house rules that a machine can check: layers, sizes, words at the head of a file, and who may touch what."""

import ast
import functools
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
LAYERS = ["fl_sim", "strategies", "clients", "experiments"]
"""From the bottom up: a layer imports itself and those before it."""

FLOWER_API = {"flwr.app", "flwr.clientapp", "flwr.serverapp", "flwr.simulation"}
"""What Flower documents for apps; anything else of it is touched in fl_sim/wire/flower.py alone."""

MODULES = sorted(path.relative_to(ROOT) for layer in LAYERS for path in (ROOT / layer).rglob("*.py"))
FILES = MODULES + sorted(path.relative_to(ROOT) for path in (ROOT / "tests").rglob("*.py"))

every_module = pytest.mark.parametrize("module", MODULES, ids=str)
every_file = pytest.mark.parametrize("file", FILES, ids=str)


@functools.cache
def parse(file: Path) -> ast.Module:
    return ast.parse((ROOT / file).read_text(encoding="utf-8"))


def imported(tree: ast.AST) -> Iterator[str]:
    """The dotted name of every module that may be imported, anywhere in a file; ``from a import b`` may be ``a.b``."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"line {node.lineno}: a relative import hides its layer"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def dotted(node: ast.AST) -> str:
    """``np.random.seed`` of an attribute chain; empty for anything else."""
    if isinstance(node, ast.Attribute):
        return f"{dotted(node.value)}.{node.attr}"
    return node.id if isinstance(node, ast.Name) else ""


def inside(name: str, packages: set[str]) -> bool:
    return any(name == package or name.startswith(package + ".") for package in packages)


@every_module
def test_a_layer_imports_none_above_it(module: Path) -> None:
    above = set(LAYERS[LAYERS.index(module.parts[0]) + 1 :]) | {"tests"}
    assert not [name for name in imported(parse(module)) if inside(name, above)]


@every_module
def test_only_one_file_touches_flower_beyond_its_documented_api(module: Path) -> None:
    if module != Path("fl_sim/wire/flower.py"):
        assert not [name for name in imported(parse(module)) if inside(name, {"flwr"}) and not inside(name, FLOWER_API)]


@every_module
def test_only_one_file_makes_randomness(module: Path) -> None:
    if module == Path("fl_sim/rng.py"):
        return
    tree = parse(module)
    makers = {"random", "numpy.random", "torch.random"}
    assert not [name for name in imported(tree) if inside(name, makers)]
    generators = {
        "np.random",
        "numpy.random",
        "torch.random",
        "torch.manual_seed",
        "torch.seed",
        "torch.cuda.manual_seed_all",
    }
    draws = {
        f"torch.{name}"
        for name in (
            "rand",
            "randn",
            "randint",
            "randperm",
            "bernoulli",
            "multinomial",
            "normal",
            "rand_like",
            "randn_like",
        )
    }
    types = {"np.random.Generator"}
    used = {dotted(node) for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
    assert not [
        name for name in used if inside(name, generators | draws) and not inside(name, types) and name != "np.random"
    ]


@every_file
def test_files_and_functions_stay_small(file: Path) -> None:
    assert len((ROOT / file).read_text(encoding="utf-8").splitlines()) < 300
    functions = [node for node in ast.walk(parse(file)) if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))]
    assert not [f.name for f in functions if (f.end_lineno or f.lineno) - f.lineno + 1 >= 60]


@every_file
def test_every_file_says_what_it_is(file: Path) -> None:
    assert ast.get_docstring(parse(file)) or not (ROOT / file).read_text(encoding="utf-8").strip()
    assert file.name != "utils.py"


@pytest.mark.parametrize(
    "file", [m for m in MODULES if m.parent == Path("strategies") and m.stem != "__init__"], ids=str
)
def test_a_strategy_opens_with_its_paper(file: Path) -> None:
    head = ast.get_docstring(parse(file)) or ""
    years = [
        word
        for word in head.replace(",", " ").replace(".", " ").replace("(", " ").replace(")", " ").split()
        if word.isdigit() and len(word) == 4
    ]
    assert years or "no paper" in head.lower()


def test_the_checks_see_what_they_look_for() -> None:
    code = ast.parse(
        "import numpy.random as r\nfrom flwr.common import x\ndef f():\n    from clients import app\n    torch.manual_seed(0)"
    )
    assert list(imported(code)) == ["numpy.random", "flwr.common.x", "clients.app"]
    assert "torch.manual_seed" in {dotted(node) for node in ast.walk(code)}
    assert inside("flwr.common.x", {"flwr"}) and not inside("flwrx", {"flwr"})
    assert {path.parts[0] for path in MODULES} <= set(LAYERS) and Path("fl_sim/tree.py") in MODULES
