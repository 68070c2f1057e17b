"""The commands whose flags are those of ``experiments.run``, and which of them each shows in its help."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Command:
    """A command that reads the flags of ``experiments.run``."""

    name: str
    """The command is ``python -m experiments.NAME``."""
    about: str
    """The first lines of its help: paragraphs of at most 100 characters, which tyro does not break into lines."""
    shows: frozenset[str] = frozenset()
    """The flags and tables of flags that its help shows; empty: all. The others are read, and do nothing."""


RUN = Command(
    "run",
    "Run a recipe, with settings from the command line; go on with a run; run a Flower app.\n\n"
    "Strategies, tasks and so on with a line about each: python -m experiments.list",
)
PARTITION = Command(
    "partition",
    "Divide a data set among clients and look at it: a table and a picture in a new folder of --out.\n\n"
    "Other flags of experiments.run are read too, and change nothing here.",
    frozenset(["recipe", "task", "partition", "clients", "holdout_clients", "validation_clients", "validation"])
    | {"data_dir", "out", "quiet", "json"},
)
COMMANDS = {command.name: command for command in (RUN, PARTITION)}
