"""``run --help`` and ``partition --help``, shown before the command's module is imported, which takes seconds.

Names, texts and defaults are read from source files (``experiments.config.offered``): neither torch nor Flower is
imported, but for a component of the user's own.
"""

import os
import sys


def words_of(command: list[str]) -> tuple[str, ...]:
    """The words after ``experiments.`` in ``python -m experiments.run --help``, or after ``fl-sim``; () of others."""
    if "-m" in command[:-1]:
        module, *rest = command[command.index("-m") + 1 :]
        return (module.removeprefix("experiments."), *rest) if module.startswith("experiments.") else ()
    scripts = [n for n, word in enumerate(command) if os.path.basename(word) in ("fl-sim", "fl-sim.exe")]
    return tuple(command[scripts[0] + 1 :]) if scripts else ()


def show_if_asked() -> None:
    """Where this process was asked for the help of ``run`` or ``partition``: print it, and end.

    Raises SystemExit: 0 after the help, 2 after an error in the words beside ``--help``.
    """
    name, *words = words_of(list(getattr(sys, "orig_argv", ()))) or ("",)
    if name not in ("run", "partition") or not {"-h", "--help"} & set(words):
        return
    from experiments.config.command_line import parse  # imported here, because few commands need them
    from experiments.config.offered.commands_with_flags import COMMANDS

    os.environ.setdefault("PYDANTIC_DISABLE_PLUGINS", "__all__")  # to look for plugins takes time
    try:
        parse(words, COMMANDS[name])
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(2) from None
