"""The rules of the source tree, each a function that lists what breaks it; tests/test_layout.py applies them."""

import ast
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path

from tests.source_tree import LAYERS, dotted, imported, inside, is_private, reflected, resolve

FLOORS: list[set[str]] = [
    {"rounds"},
    {"grids"},
    {"executors"},
    {"engines"},
    {"blocks"},
    {"learning"},
    {"population", "kernels", "wire", "logs", "states"},
    {"tree", "rng", "dotted", "errors", "leaving", "registry"},
]
"""The folders and files of fl_sim from the top of the stair down; each imports only itself and floors below its own."""
FACADES = {"fl_sim", "fl_sim.local"}
"""Modules that only re-export; they stand above the stair, so no floor imports them."""

FLOWER_API = {"flwr.app", "flwr.clientapp", "flwr.serverapp", "flwr.simulation"}
"""The parts of Flower that its documentation offers to apps; the rest is used in FLOWER_FILES alone."""
FLOWER_FILES = {Path("fl_sim/wire/flower.py"), Path("fl_sim/wire/legacy_flower.py")}

MAX_LINES, MAX_FUNCTION_LINES, MAX_WIDTH, MAX_FILES = 300, 60, 120, 13
CROWDED = {"strategies", "clients/tasks", "clients/partitions", "clients/models", "experiments/studies"}
"""Folders with one file for each name that the command line offers, or for each command: they may grow."""
SHARED_STEMS = {"__init__", "__main__", "base"} | set(
    "commands run list partition check replay analysis backends collect table node".split()  # noqa: SIM905
)
"""File names that may occur twice in a package: those of Python and of documented commands, and ``base``."""


def floor(module: str) -> tuple[int, str]:
    """(number of the floor, counted from the top; folder or file) of a module of fl_sim; a facade is above the top."""
    place = "" if module in FACADES else module.split(".")[1]
    return next((number for number, places in enumerate(FLOORS) if place in places), -1), place


def climbs(name: str, trees: Mapping[str, ast.AST]) -> list[str]:
    """The imports of one module of fl_sim that do not lead down the stair."""
    number, place = floor(name)
    targets = {resolve(target, trees) for target in imported(trees[name]) if inside(target, {"fl_sim"})}
    floors = {target: floor(target) for target in sorted(t for t in targets if t)}
    return [target for target, (n, where) in floors.items() if where != place and n <= number]


def undocumented_flower(tree: ast.AST) -> list[str]:
    """Imports of Flower that its documentation does not name, and reflection on it or on our file about it."""
    names = [name for name in imported(tree) if inside(name, {"flwr"}) and not inside(name, FLOWER_API)]
    return names + [name for name in reflected(tree) if inside(name, {"flwr", "fl_sim.wire.flower"})]


def foreign_private_names(file: Path, names: Iterable[str]) -> list[str]:
    """The private names of other modules that a file has no right to.

    Those of PyTorch belong into fl_sim/kernels and fl_sim/rng.py, those of Flower into fl_sim/wire/flower.py, those of
    Ray into fl_sim/executors/ray. A module with a private name belongs to the modules of its folder.
    """
    folder = ".".join(file.parent.parts) + "._"
    names = [name for name in names if not name.startswith(folder) or is_private(name.removeprefix(folder))]
    if file.parent == Path("fl_sim/kernels") or file in {Path("fl_sim/rng.py"), *FLOWER_FILES}:
        return [name for name in names if inside(name, set(LAYERS))]
    if file.parent == Path("fl_sim/executors/ray"):
        names = [name for name in names if not inside(name, {"ray"})]
    return [name for name in names if name != "os._exit"]  # documented, in spite of its name


def random_sources(tree: ast.AST) -> list[str]:
    """What a file uses of the generators of Python, NumPy and PyTorch."""
    generators = set("np.random numpy.random torch.random torch.manual_seed torch.seed".split())  # noqa: SIM905
    draws = "rand randn randint randperm bernoulli multinomial normal rand_like randn_like".split()  # noqa: SIM905
    random = generators | {"torch.cuda.manual_seed_all"} | {f"torch.{name}" for name in draws}
    found = [name for name in imported(tree) if inside(name, {"random", "numpy.random", "torch.random"})]
    used = {dotted(node) for node in ast.walk(tree) if isinstance(node, ast.Attribute)} - {"np.random"}
    return found + sorted(name for name in used if inside(name, random) and not inside(name, {"np.random.Generator"}))


def too_long(text: str) -> list[str]:
    """Whether a source file has too many lines, and which of its functions have."""
    nodes, lines = list(ast.walk(ast.parse(text))), len(text.splitlines())
    functions = [n for n in nodes if isinstance(n, ast.FunctionDef | ast.AsyncFunctionDef)]
    found = [f"{lines} lines"] if lines >= MAX_LINES else []
    return found + [f.name for f in functions if (f.end_lineno or f.lineno) - f.lineno + 1 >= MAX_FUNCTION_LINES]


def too_wide(text: str) -> list[str]:
    """The lines of a source file that are too wide."""
    return [f"line {number}" for number, line in enumerate(text.splitlines(), 1) if len(line) > MAX_WIDTH]


def crowded(files: Iterable[Path]) -> list[str]:
    """Folders with more modules than one reads at a glance."""
    counts = Counter(file.parent.as_posix() for file in files if file.stem != "__init__")
    return [f"{folder}: {count}" for folder, count in counts.items() if count > MAX_FILES and folder not in CROWDED]


def repeated(files: Iterable[Path]) -> list[str]:
    """File names that a top-level package has twice."""
    counts = Counter((file.parts[0], file.stem) for file in files if file.stem not in SHARED_STEMS)
    return [f"{package}: {stem}" for (package, stem), count in counts.items() if count > 1]


def mirrors(test: Path, sources: Iterable[Path]) -> bool:
    """Whether ``tests/a/b/test_X.py`` tests a file or folder of ``a/b`` whose name is X or what X begins with."""
    folder, name = test.parent.relative_to("tests"), test.stem.removeprefix("test_")
    inner = [source.relative_to(folder) for source in sources if source.is_relative_to(folder)]
    stems = {source.with_suffix("").parts[0].strip("_") for source in inner} - {"", "init"}
    return any(name == stem or name.startswith(stem + "_") for stem in stems)


def names_its_paper(text: str) -> bool:
    """Whether a text has a year, or denies that there is a paper."""
    words = "".join(" " if c in ",.()" else c for c in text).split()
    return any(word.isdigit() and len(word) == 4 for word in words) or "no paper" in text.lower()
