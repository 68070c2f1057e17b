"""``python -m experiments.check my_algorithm.py [--json]``: the contract checks on a user's own file.

Looks at what the file defines: subclasses of Flower's ``Strategy``, functions marked ``@offer`` as a task, a partition or a
model. Nothing is registered. One line a check; exit code 0 when all hold, 1 when some fail, 2 for a file that cannot be
checked. A strategy is checked with its defaults, and once more for each other value of its ``Literal`` parameters.
"""

import functools
import importlib.util
import inspect
import json
import logging
import sys
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from types import ModuleType
from typing import Annotated, Any, Literal, get_args, get_origin

import torch
from flwr.serverapp import strategy as flower_strategies

from experiments.check.component_checks import MODEL_CHECKS, PARTITION_CHECKS, TASK_CHECKS
from experiments.check.strategy_checks import CHECKS, FLOWER_CHECKS
from fl_sim import registry
from strategies.base.strategy import Strategy

__all__ = ["CHECKS", "Result", "Target", "main", "offers", "run_check", "targets_of", "variants"]

Check = Callable[[Any], None]
OF_KIND: dict[str, list[Check]] = {"task": TASK_CHECKS, "partition": PARTITION_CHECKS, "model": MODEL_CHECKS}


@dataclass(frozen=True)
class Target:
    """Something to check."""

    kind: str
    """strategy, task, partition or model."""
    name: str
    """What it is called in a line of output."""
    make: Callable[..., Any]
    """Makes it; one object for all checks of it."""
    checks: Sequence[Check]


@dataclass(frozen=True)
class Result:
    """One check of one thing."""

    kind: str
    name: str
    check: str
    why: str = ""
    """Why it failed; empty if it holds."""

    def line(self) -> str:
        """As a line of output."""
        return f"{'FAILED' if self.why else 'ok    '} {self.kind} {self.name}: {self.check}" + (
            f": {self.why}" if self.why else ""
        )


def variants(cls: Callable[..., Any]) -> list[dict[str, Any]]:
    """Arguments that show each of a thing's ways: none, then each further value of each parameter of type ``Literal``."""
    found: list[dict[str, Any]] = [{}]
    try:
        parameters = registry.parameters(cls)
    except (NameError, ValueError, TypeError):  # its signature cannot be read; the checks will say what is wrong
        return found
    for name, parameter in parameters.items():
        hint = parameter.annotation
        hint = get_args(hint)[0] if get_origin(hint) is Annotated else hint
        found += (
            [{name: value} for value in get_args(hint) if value != parameter.default]
            if get_origin(hint) is Literal
            else []
        )
    return found


def targets_of(kind: str, name: str, thing: Callable[..., Any]) -> list[Target]:
    """All variants of a thing, each with the checks for its kind."""
    checks = OF_KIND.get(kind) or (CHECKS if inspect.isclass(thing) and issubclass(thing, Strategy) else FLOWER_CHECKS)
    targets = []
    for arguments in variants(thing):
        text = ", ".join(f"{k}={v!r}" for k, v in arguments.items())
        targets.append(Target(kind, name + f"({text})" * bool(text), functools.partial(thing, **arguments), checks))
    return targets


def offers(module: ModuleType) -> list[tuple[str, str, Any]]:
    """(kind, name, thing) of what a module itself defines and offers."""
    found: list[tuple[str, str, Any]] = []
    for name, thing in vars(module).items():
        if getattr(thing, "__module__", None) != module.__name__:
            continue
        if inspect.isclass(thing) and issubclass(thing, flower_strategies.Strategy) and not inspect.isabstract(thing):
            found.append(("strategy", name, thing))
        elif inspect.isfunction(thing) and getattr(thing, "kind", None) in OF_KIND:
            found.append((thing.__dict__["kind"], thing.__dict__["offered_as"], thing))
    return found


@contextmanager
def loaded(path: Path) -> Iterator[ModuleType]:
    """While open, the module that a file makes; forgotten after. Raises ValueError that says why it cannot be imported."""
    if not path.is_file() or path.suffix != ".py":
        raise ValueError(
            f"{str(path)!r}: {'must be a Python file (.py)' if path.exists() else 'there is no such file'}"
        )
    name = path.stem if path.stem not in sys.modules else f"{path.stem}_checked"
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    beside = str(path.resolve().parent)
    sys.modules[name] = module  # dataclasses and pickle look a class up there
    sys.path.append(beside)  # what lies beside the file can be imported, as when it is run
    try:
        try:
            spec.loader.exec_module(module)
        except (Exception, SystemExit) as error:
            raise ValueError(
                f"{str(path)!r}: fails when imported: {type(error).__name__}: {error}{_where(error)}"
            ) from error
        yield module
    finally:
        sys.modules.pop(name, None)
        sys.path.remove(beside)


def run_check(target: Target, check: Check) -> Result:
    """Run one check; whatever it raises is why it fails."""
    why = ""
    try:
        check(target.make)
    except AssertionError as error:
        why = _one_line(error) or "an assertion fails" + _where(error)
    except Exception as error:
        why = f"{type(error).__name__}: {_one_line(error)}{_where(error)}"
    return Result(target.kind, target.name, check.__name__.removeprefix("check_").replace("_", " "), why)


def _one_line(error: BaseException) -> str:
    """What it says, in one line: a traceback that a client sent ends with what matters."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    if "Traceback" in str(error) and len(lines) > 1:
        return f"{lines[0].removesuffix('Traceback (most recent call last):').rstrip()} {lines[-1]}"
    return " ".join(lines)


def _where(error: BaseException) -> str:
    last = traceback.extract_tb(error.__traceback__)[-1]
    return f" ({Path(last.filename).name}, line {last.lineno})"


def results(module: ModuleType) -> Iterator[Result]:
    """All checks of all that a module offers, as they are done."""
    for kind, name, thing in offers(module):
        for target in targets_of(kind, name, thing):
            for check in target.checks:
                yield run_check(target, check)


def main(argv: Sequence[str] | None = None) -> int:
    """The command. Returns the exit code."""
    words = list(sys.argv[1:] if argv is None else argv)
    if "-h" in words or "--help" in words:
        print(__doc__)
        return 0
    try:
        paths = [word for word in words if word != "--json"]
        if len(paths) != 1 or paths[0].startswith("-"):
            raise ValueError(f"{' '.join(paths) or 'no file'}: a call is python -m experiments.check FILE [--json]")
        with loaded(Path(paths[0])) as module:
            if not offers(module):
                what = "a subclass of Strategy, or a function with @offer (task, partition, model), that the file itself defines"
                raise ValueError(f"{paths[0]!r}: offers nothing to check; it needs {what}")
            return report(paths[0], results(module), "--json" in words)
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2


def report(file: str, found: Iterator[Result], as_json: bool) -> int:
    """Print results as they come; the exit code."""
    logging.getLogger("flwr").setLevel(logging.WARNING)  # Flower's strategies tell each step
    torch.set_num_threads(1)
    done = []
    for result in found:
        done.append(result)
        if not as_json:
            print(result.line(), flush=True)
    failed = sum(bool(result.why) for result in done)
    if as_json:
        rows = [{**asdict(result), "ok": not result.why} for result in done]
        print(json.dumps({"file": file, "status": "failed" if failed else "ok", "failed": failed, "results": rows}))
    else:
        print(f"{len(done) - failed} of {len(done)} checks hold")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
