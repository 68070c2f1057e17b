"""One file of a data set that has no download: where it is searched, and what a user is told where it is not there."""

import os
from pathlib import Path


def file_in(task: str, data_dir: str | None, name: str, holds: str) -> Path:
    """The file ``name`` in ``data_dir``, or else in the folder FL_SIM_DATA; no other place is searched.

    Parameters
    ----------
    task : str
        Name of the task, for errors.
    data_dir : str, optional
        The folder that the user names.
    name : str
        The file's name in it.
    holds : str
        What the file must hold, in words.

    Raises
    ------
    ValueError
        Where no folder is named, or it is missing, or it lacks the file; the message says how to get one.
    """
    key, folder = ("data_dir", data_dir) if data_dir else ("FL_SIM_DATA", os.environ.get("FL_SIM_DATA", ""))
    if not folder:
        cure = f"name a folder that holds {name} ({holds}) by --data_dir DIR or the environment variable FL_SIM_DATA"
        raise ValueError(f"task.name = {task!r}: there is no data, and no download; {cure}")
    path = Path(folder).expanduser()
    if not path.is_dir():
        raise ValueError(f"{key} = {folder!r}: no such folder; name one that holds {name} ({holds})")
    if not (path / name).is_file():
        raise ValueError(f"{key} = {folder!r}: holds no {task}; it must hold {name} ({holds})")
    return path / name
