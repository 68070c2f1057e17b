"""Reads the source files for tests/test_layout.py: imports, the modules that they name, cycles, and private names."""

import ast
import functools
from collections.abc import Iterator, Mapping
from pathlib import Path

ROOT = Path(__file__).parents[1]
LAYERS = ["fl_sim", "strategies", "clients", "experiments"]
"""The packages from the bottom up: a package imports itself and those before it."""

MODULES = sorted(path.relative_to(ROOT) for layer in LAYERS for path in (ROOT / layer).rglob("*.py"))
TESTS = sorted(path.relative_to(ROOT) for path in (ROOT / "tests").rglob("*.py"))

Graph = Mapping[str, set[str]]
"""Module -> the modules that it imports, all by dotted name."""


@functools.cache
def parse(file: Path) -> ast.Module:
    """The syntax tree of a file of this repository."""
    return ast.parse((ROOT / file).read_text(encoding="utf-8"))


def module_name(file: Path) -> str:
    """``fl_sim/rng.py`` -> ``fl_sim.rng``; a package has the name of its folder."""
    parts = file.with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


TREES = {module_name(file): parse(file) for file in MODULES}
"""Every module of the four packages."""


def imported(tree: ast.AST) -> Iterator[str]:
    """The dotted name of every import anywhere in a file, also inside functions and ``if TYPE_CHECKING``.

    ``from a import b`` counts as ``a.b``, and ``import_module("a.b")`` with a literal name as ``a.b``.
    """
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"line {node.lineno}: a relative import hides its layer"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Call) and dotted(node.func).rpartition(".")[2] in {"import_module", "__import__"}:
            yield from (a.value for a in node.args[:1] if isinstance(a, ast.Constant) and isinstance(a.value, str))


def dotted(node: ast.AST) -> str:
    """``np.random.seed`` of an attribute chain; empty for anything else."""
    if isinstance(node, ast.Attribute):
        return f"{dotted(node.value)}.{node.attr}"
    return node.id if isinstance(node, ast.Name) else ""


def inside(name: str, packages: set[str]) -> bool:
    """Whether a dotted name is one of the packages or lies within one."""
    return any(name == package or name.startswith(package + ".") for package in packages)


def aliases(tree: ast.AST) -> dict[str, str]:
    """Name in this file -> the dotted name of what was imported under it."""
    names: dict[str, str] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                names[alias.asname or alias.name.split(".")[0]] = (
                    alias.name if alias.asname else alias.name.split(".")[0]
                )
        elif isinstance(node, ast.ImportFrom):
            names |= {alias.asname or alias.name: f"{node.module}.{alias.name}" for alias in node.names}
    return names


def full(node: ast.AST, names: Mapping[str, str]) -> str:
    """An attribute chain with the name at its root replaced by what was imported under that name."""
    root, dot, rest = dotted(node).partition(".")
    return names.get(root, root) + dot + rest


def resolve(name: str, trees: Mapping[str, ast.AST]) -> str | None:
    """The module that a dotted name means; a name that a package re-exports means the module that defines it.

    None where the name belongs to no module of ``trees``.
    """
    if name in trees:
        return name
    package, _, own = name.rpartition(".")
    if not package:
        return None
    if package not in trees:
        return resolve(package, trees)
    if any(other.startswith(package + ".") for other in trees):  # a package, not a plain module
        elsewhere = aliases(trees[package]).get(own)
        if elsewhere and elsewhere != name:
            return resolve(elsewhere, trees) or package
    return package


def graph(trees: Mapping[str, ast.AST]) -> dict[str, set[str]]:
    """The imports among the given modules."""
    found = {name: {resolve(target, trees) for target in imported(tree)} for name, tree in trees.items()}
    return {name: {target for target in targets if target and target != name} for name, targets in found.items()}


def cycles(imports: Graph) -> list[list[str]]:
    """The groups of modules that import one another in a circle."""

    def reachable(start: str) -> set[str]:
        seen: set[str] = set()
        waiting = [start]
        while waiting:
            new = imports.get(waiting.pop(), set()) - seen
            seen |= new
            waiting += new
        return seen

    reach = {name: reachable(name) for name in imports}
    groups = {tuple(sorted(m for m in reach[name] if name in reach.get(m, set()))) for name in imports}
    return sorted(list(group) for group in groups if group)


def is_private(name: str) -> bool:
    """Whether any part of a dotted name begins with one underscore."""
    return any(part.startswith("_") and not part.startswith("__") for part in name.split("."))


def private_names(tree: ast.AST) -> list[str]:
    """Private names that a file takes from elsewhere: imported, as an attribute, or by ``getattr`` with a literal.

    An attribute counts where the file neither defines it nor reaches it through ``self``, ``cls`` or ``super()``.
    """
    nodes = list(ast.walk(tree))
    own = {n.name for n in nodes if isinstance(n, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef)}
    own |= {n.attr for n in nodes if isinstance(n, ast.Attribute) and isinstance(n.ctx, ast.Store)}
    own |= {n.id for n in nodes if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)}
    names = aliases(tree)
    modules = {name for name, target in names.items() if target.split(".")[0] in LAYERS}
    found = [name for name in imported(tree) if is_private(name)]
    for node in nodes:
        if isinstance(node, ast.Attribute) and is_private(node.attr):
            owner = ast.unparse(node.value)
            inherited = owner in {"self", "cls"} or owner.startswith("super(")
            if owner in modules or not (inherited or node.attr in own):
                found.append(full(node, names) if dotted(node.value) else ast.unparse(node))
        elif isinstance(node, ast.Call) and dotted(node.func) in {"getattr", "hasattr", "setattr", "delattr"}:
            literal = node.args[1].value if len(node.args) > 1 and isinstance(node.args[1], ast.Constant) else ""
            if isinstance(literal, str) and is_private(literal):
                found.append(f"{full(node.args[0], names)}.{literal}")
    return found


def reflected(tree: ast.AST) -> list[str]:
    """What a file passes to ``vars``, ``dir`` or ``getattr``, or reads the ``__dict__`` of, by its imported name."""
    names, found = aliases(tree), []
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and dotted(node.func) in {"vars", "dir", "getattr"} and node.args:
            found.append(full(node.args[0], names))
        elif isinstance(node, ast.Attribute) and node.attr == "__dict__":
            found.append(full(node.value, names))
    return found
