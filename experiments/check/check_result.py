"""Running the checks of ``experiments.check``, and the result of each."""

from collections.abc import Iterator
from dataclasses import dataclass
from types import ModuleType

from experiments.check.places import at_fault
from experiments.check.targets import Check, Target, offers, targets_of


@dataclass(frozen=True)
class Result:
    """The result of one check of one object."""

    kind: str
    name: str
    check: str
    why: str = ""
    """Why it failed; empty if it holds."""

    def line(self) -> str:
        """The result as a line of output."""
        verdict, reason = ("FAILED", f": {self.why}") if self.why else ("ok    ", "")
        return f"{verdict} {self.kind} {self.name}: {self.check}{reason}"


def run_check(target: Target, check: Check) -> Result:
    """Run one check; any error that it raises is the reason of its failure, which names a file and a line."""
    why = ""
    try:
        check(target.make)
    except AssertionError as error:
        why = (_one_line(error) or "an assertion fails") + at_fault(error, target.make)
    except Exception as error:
        why = f"{type(error).__name__}: {_one_line(error)}{at_fault(error, target.make)}"
    return Result(target.kind, target.name, check.__name__.removeprefix("check_").replace("_", " "), why)


def results(module: ModuleType) -> Iterator[Result]:
    """Run all checks of all that a module offers, and yield each result when it is known."""
    for kind, name, component in offers(module):
        for target in targets_of(kind, name, component):
            for check in target.checks:
                yield run_check(target, check)


def _one_line(error: BaseException) -> str:
    """The message of an error in one line; of a client's traceback, the first and the last line."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    if "Traceback" in str(error) and len(lines) > 1:
        return f"{lines[0].removesuffix('Traceback (most recent call last):').rstrip()} {lines[-1]}"
    return " ".join(lines)
