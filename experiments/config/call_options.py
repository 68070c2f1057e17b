"""Options of a call of ``experiments.run`` that are no settings of a run."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Options:
    """Options of a call that are no settings of a run."""

    app: str = ""
    """Folder of a Flower app (with its pyproject.toml) to run instead of a strategy of this project."""
    dry_run: bool = False
    """Print the plan and stop."""
    resume: str = ""
    """A run folder: continue its run from the last checkpoint; only --rounds and a few others may change."""
    quiet: bool = False
    """Print no progress and no table."""
    json: bool = False
    """Print the summary as one JSON object, as the last line of stdout."""
    vmap_over: str = ""
    """KEY=A,B;KEY=C,D (floats, such as local.lr): train the runs of all combinations and seeds as one batch."""
