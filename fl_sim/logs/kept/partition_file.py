"""``partition.json``: which client owns how many samples of each label, as it was when the run began."""

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas as pd

PARTITION = "partition.json"
"""Name of the file."""


def write(run: Path, clients: Sequence[int], labels: Sequence[Any], counts: Sequence[Sequence[int]]) -> None:
    """Write the table: ``counts`` (C, K) of the samples of each of ``labels`` (K) at each of ``clients`` (C)."""
    text = json.dumps({"labels": list(labels), "clients": list(clients), "counts": counts}, separators=(",", ":"))
    temporary = run / f".{PARTITION}.{os.getpid()}"
    try:
        temporary.write_text(text + "\n", encoding="utf-8")
        os.replace(temporary, run / PARTITION)
    finally:
        temporary.unlink(missing_ok=True)


def read(run: Path, classes: Sequence[Any] = ()) -> "pd.DataFrame":
    """The table as a frame: a row a client (its id is the index), a column a label.

    ``classes`` : the user's own names of the labels 0..K-1, where there are any. Raises ValueError where the run has no
    such file, or a damaged one.
    """
    import pandas as pd  # Imported here so that a device that trains, and never reads logs, does not load pandas.

    try:
        found = json.loads((run / PARTITION).read_text(encoding="utf-8"))
        labels = [classes[k] if isinstance(k, int) and 0 <= k < len(classes) else k for k in found["labels"]]
        index = pd.Index(found["clients"], name="client")
        return pd.DataFrame(found["counts"], index=index, columns=pd.Index(labels, name="label"))
    except FileNotFoundError as error:
        why = "it is of an older version, of a Flower app, or of clients that are not known before they train"
        raise ValueError(f"{run}: has no {PARTITION}: {why}") from error
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{run / PARTITION}: is damaged ({error})") from error
