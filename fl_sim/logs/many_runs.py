"""``load_all``: the rounds of many runs in one frame, with the settings in which they differ."""

import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fl_sim.dotted import flatten
from fl_sim.logs.columns import CONFIG
from fl_sim.logs.reader import RunLog, read_back

if TYPE_CHECKING:
    import pandas as pd

OF_THE_PLACE = ("out", "data_dir")
"""Settings that say where a run's files are: never a column."""


def load_all(folder: str | Path) -> "pd.DataFrame":
    """The rounds of all runs in a folder, at any depth, as one frame: a row for each run and round.

    Parameters
    ----------
    folder : str or Path
        Such as ``runs/``, or a sweep's folder.

    Returns
    -------
    DataFrame
        ``run``, the run's folder relative to ``folder``; ``status``, that of its summary, or ``running`` where it has
        none (it goes on, or was killed); each setting in which the runs differ, by its dotted key (``strategy.mu``),
        NaN for a run that lacks it; then the columns of ``rounds.jsonl``. A setting that is named as one of these
        columns (``clients``) is ``config.clients``; a list is a text.

    Raises
    ------
    ValueError
        Where the folder holds no run. A run that cannot be read is left out with a warning that says why.
    """
    import pandas as pd  # Imported here so that a device that trains, and never reads logs, does not load pandas.

    root = Path(folder)
    logs: dict[str, RunLog] = {}
    for file in sorted(root.rglob(CONFIG)):
        name = str(file.parent.relative_to(root))
        try:
            logs[name] = read_back(file.parent)
        except ValueError as error:
            warnings.warn(f"{error}; it is left out", stacklevel=2)
    if not logs:
        why = "holds no run" if root.is_dir() else "there is no such folder"
        raise ValueError(f"folder = {str(folder)!r}: {why}; name the folder that --out named")
    differ = differing({name: log.config for name, log in logs.items()})
    frames = []
    for name, log in logs.items():
        known: dict[str, Any] = {"run": name, "status": log.summary.get("status", "running")}
        known |= {f"config.{k}" if k in log.rounds else k: v for k, v in differ[name].items()}
        begin = pd.DataFrame({k: float("nan") if v is None else v for k, v in known.items()}, index=log.rounds.index)
        frames.append(pd.concat([begin, log.rounds.rename(columns={k: f"own_{k}" for k in known})], axis=1))
    return pd.concat(frames, ignore_index=True)


def differing(configs: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """By run, its values of the dotted settings in which the runs differ, None where it lacks one.

    The order is that of the first config that has the setting; lists are text.
    """
    flat = {
        name: {k: str(v) if isinstance(v, list) else v for k, v in flatten(config).items() if k not in OF_THE_PLACE}
        for name, config in configs.items()
    }
    keys = dict.fromkeys(key for settings in flat.values() for key in settings)
    chosen = [key for key in keys if len({repr(settings.get(key)) for settings in flat.values()}) > 1]
    return {name: {key: settings.get(key) for key in chosen} for name, settings in flat.items()}
