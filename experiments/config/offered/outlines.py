"""The outline of a module: its classes with their fields, and its components with their signatures; nothing can be run.

It is made from the source file. What the module imports is not imported: names are followed into the source files of
this project, and into Python's standard library; all others (torch's, Flower's) are ``Foreign``. A test compares the
outlines of all components with the components themselves.
"""

import ast
import functools
import importlib
import inspect
import sys
from abc import ABCMeta
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType, new_class
from typing import Any

from experiments.installation import PACKAGES, ROOT
from fl_sim import registry

IMPORTED = {*sys.stdlib_module_names, "annotated_types", "fl_sim.registry"}
"""Modules whose names are imported where a signature needs them."""
FIELDS_ONLY = functools.partial(dataclass, repr=False, eq=False)
"""``dataclass`` without methods that no outline needs: to make these takes time."""


class _Anything(type):
    """What stands for a name that is not read can be subscripted and called, and has all attributes."""

    def __getattr__(cls, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return cls

    def __getitem__(cls, key: object) -> Any:
        return cls

    def __call__(cls, *args: object, **kwargs: object) -> Any:
        return cls


class Foreign(metaclass=_Anything):
    """Stands for what is not read: a name of another library, or what it makes."""


@contextmanager
def outlined() -> Iterator[None]:
    """Within it, ``fl_sim.registry`` finds outlines of this project's components instead of importing them."""
    with registry.importing_by(outline):
        yield


@functools.cache
def outline(name: str) -> ModuleType:
    """The outline of one of this project's modules: its classes, and its functions that are offered.

    It is the module itself, imported, where a signature, a field or a base class there cannot be read.
    """
    names, module = Names.of(name), ModuleType(name)
    for key, (node, _) in names.nodes.items():
        if isinstance(node, ast.ClassDef) or (isinstance(node, ast.FunctionDef) and node.decorator_list):
            vars(module)[key] = names[key]
    parts = [part for part in vars(module).values() if hasattr(part, "kind") and part is not Foreign]
    unread = any(getattr(part, "unread", False) for part in parts)
    return importlib.import_module(name) if unread else module


class Names(dict[str, Any]):
    """The names of a module (or, with ``outer``, of a class in it); each is read from its source when first asked."""

    def __init__(self, module: str, body: Iterable[ast.stmt], outer: "Names | None" = None) -> None:
        self.module, self.outer, self.nodes = module, outer, dict[str, tuple[ast.AST, str]]()
        for statement in body:
            if isinstance(statement, ast.If | ast.Try):  # imports for type checkers, or of what may lack
                self.nodes |= Names(module, statement.body).nodes
            elif isinstance(statement, ast.Import | ast.ImportFrom):
                from_ = ""
                if isinstance(statement, ast.ImportFrom):
                    from_ = "." * statement.level + (statement.module or "")
                self.nodes |= {part.asname or part.name: (part, from_) for part in statement.names}
            elif isinstance(statement, ast.ClassDef | ast.FunctionDef):
                self.nodes[statement.name] = (statement, "")
            elif isinstance(statement, ast.AnnAssign | ast.Assign):
                targets = statement.targets if isinstance(statement, ast.Assign) else [statement.target]
                self.nodes |= {t.id: (statement, "") for t in targets if isinstance(t, ast.Name)}
                for tuple_ in (t for t in targets if isinstance(t, ast.Tuple)):  # LEAST, MOST = 1, 32
                    self.nodes |= {t.id: (statement, "") for t in tuple_.elts if isinstance(t, ast.Name)}

    @staticmethod
    @functools.cache
    def of(module: str) -> "Names":
        """The names of one of this project's modules."""
        place = Path(ROOT, *module.split("."))
        file = place / "__init__.py" if place.is_dir() else place.with_suffix(".py")
        return Names(module, ast.parse(file.read_text(encoding="utf-8")).body)

    def __missing__(self, name: str) -> Any:
        if name not in self.nodes:
            if self.outer is None:
                raise KeyError(name)  # a builtin, which eval finds itself
            return self.outer[name]
        self[name] = found = self._read(name, *self.nodes[name])
        return found

    def value(self, expression: ast.expr) -> Any:
        """What an expression gives; ``Foreign`` where it needs more than is read."""
        if isinstance(expression, ast.Constant):
            return expression.value
        try:
            return eval(compile(ast.Expression(expression), self.module, "eval"), {}, self)
        except Exception:
            return Foreign

    def is_ours(self, expression: ast.expr) -> bool:
        """Whether an expression begins with a name of this project's."""
        while isinstance(expression, ast.Attribute | ast.Subscript | ast.Call):
            expression = expression.func if isinstance(expression, ast.Call) else expression.value
        node, from_ = self.nodes.get(expression.id, (None, "")) if isinstance(expression, ast.Name) else (None, "")
        module = (from_ or node.name) if isinstance(node, ast.alias) else PACKAGES[0]
        return module.partition(".")[0] in ("", *PACKAGES)

    def _read(self, name: str, node: ast.AST, from_: str) -> Any:
        if isinstance(node, ast.alias):
            return _imported(from_, node.name)
        if isinstance(node, ast.ClassDef):
            return _class(node, self)
        if isinstance(node, ast.FunctionDef):
            return _function(node, self)
        assert isinstance(node, ast.AnnAssign | ast.Assign)
        value = Foreign if node.value is None else self.value(node.value)
        for target in node.targets if isinstance(node, ast.Assign) else ():
            if isinstance(target, ast.Tuple) and value is not Foreign:
                found = {t.id: part for t, part in zip(target.elts, value, strict=True) if isinstance(t, ast.Name)}
                return found[name]
        return value


def _imported(module: str, name: str) -> Any:
    """What ``from module import name`` gives; ``import name`` where ``module`` is empty."""
    if (module, name) == ("dataclasses", "dataclass"):
        return FIELDS_ONLY
    if (module or name).partition(".")[0] in IMPORTED or module in IMPORTED:
        return getattr(importlib.import_module(module), name) if module else importlib.import_module(name)
    if module.partition(".")[0] not in PACKAGES:
        return Foreign
    names = Names.of(module)
    return names[name] if name in names.nodes else Foreign


def _class(node: ast.ClassDef, names: Names) -> Any:
    """A class with the fields, constants and names of methods of the one in the source."""
    found = [(base, names.value(base)) for base in node.bases]
    bases = [base for _, base in found if base is not Foreign]
    unread = foreign = any(base is Foreign and names.is_ours(expression) for expression, base in found)
    own, docs = Names(names.module, node.body, names), field_docs_in(node)
    body: dict[str, Any] = {
        "__module__": names.module,
        "__doc__": ast.get_docstring(node, clean=False),
        "__annotations__": {},
        "field_docs": docs,
    }
    for statement in node.body:
        if isinstance(statement, ast.AnnAssign) and isinstance(statement.target, ast.Name):
            hint = body["__annotations__"][statement.target.id] = own.value(statement.annotation)
            unread |= statement.value is not None and is_unread(hint, own[statement.target.id])
    for key, (part, _) in own.nodes.items():
        if not (isinstance(part, ast.AnnAssign) and part.value is None):
            body[key] = own[key]
            unread |= getattr(body[key], "unread", False) is True
    body |= {"unread": True} if unread else {}
    body |= {"kind": ""} if foreign else {}  # it may have one
    try:
        made = new_class(node.name, tuple(bases), {"metaclass": ABCMeta}, lambda space: space.update(body))
        return _decorated(made, node.decorator_list, names)
    except (TypeError, ValueError):  # a kind of class that is no component, such as a NamedTuple
        return Foreign


def _function(node: ast.FunctionDef, names: Names) -> Any:
    """A function with name, docstring, signature and decorators of the one in the source."""

    def function(*args: object, **kwargs: object) -> None:
        raise TypeError(f"{names.module}.{node.name} is an outline: it was read from its source, and cannot be called")

    function.__name__ = function.__qualname__ = node.name
    function.__module__, function.__doc__ = names.module, ast.get_docstring(node, clean=False)
    if names.outer is None or node.name == "__init__":
        signature = function.__signature__ = _signature(node.args, names)  # type: ignore[attr-defined]
        function.__dict__["unread"] = any(is_unread(p.annotation, p.default) for p in signature.parameters.values())
    return _decorated(function, node.decorator_list, names)


def _decorated(made: Any, decorators: Iterable[ast.expr], names: Names) -> Any:
    for expression in reversed(list(decorators)):
        decorator = names.value(expression)
        made = made if decorator is Foreign else decorator(made)
    return made


def _signature(args: ast.arguments, names: Names) -> inspect.Signature:
    """The signature of a function, its annotations and defaults evaluated."""
    kinds = inspect.Parameter
    plain = [
        *((a, kinds.POSITIONAL_ONLY) for a in args.posonlyargs),
        *((a, kinds.POSITIONAL_OR_KEYWORD) for a in args.args),
    ]
    rows: list[tuple[ast.arg, Any, ast.expr | None]] = [(*pair, None) for pair in plain]
    first = len(plain) - len(args.defaults)
    rows[first:] = [(*pair, default) for pair, default in zip(plain[first:], args.defaults, strict=True)]
    rows += [(args.vararg, kinds.VAR_POSITIONAL, None)] if args.vararg else []
    rows += [(a, kinds.KEYWORD_ONLY, default) for a, default in zip(args.kwonlyargs, args.kw_defaults, strict=True)]
    rows += [(args.kwarg, kinds.VAR_KEYWORD, None)] if args.kwarg else []
    empty = inspect.Parameter.empty
    return inspect.Signature(
        [
            inspect.Parameter(
                a.arg,
                kind,
                default=empty if default is None else names.value(default),
                annotation=empty if a.annotation is None else names.value(a.annotation),
            )
            for a, kind, default in rows
        ]
    )


def is_unread(hint: object, default: object) -> bool:
    """Whether a parameter may be a setting, and its type or its default cannot be read."""
    return default is Foreign or (hint is Foreign and isinstance(default, bool | int | float | str))


def field_docs_in(node: ast.ClassDef) -> dict[str, str]:
    """The docstring under each field in the body of a class, by the field's name."""
    return {
        ast.unparse(entry.target): inspect.cleandoc(str(after.value.value))
        for entry, after in zip(node.body, node.body[1:], strict=False)
        if isinstance(entry, ast.AnnAssign) and isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant)
    }
