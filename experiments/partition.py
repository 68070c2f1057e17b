"""``python -m experiments.partition [RECIPE] [--key value ...]``: look at a partition before training on it.

The flags are those of ``experiments.run``. Statistics of each client (``clients.csv``) and a client-by-label picture
are written to a new folder in ``--out``. With ``--partition.feature_shift`` the columns ``contrast``, ``inverted``,
``noise`` and ``angle`` tell how each client's pictures are changed (``clients/feature_shift.py``). Where a user's
clients have names, the last column, ``name``, has them; the names of a group of natural clients are separated by "; ".
"""

import json
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from clients.feature_shift import shifts
from clients.label_counts import counts
from experiments.analysis.figure_files import save
from experiments.analysis.partition_picture import partition_picture
from experiments.analysis.partition_stats import frame, summary
from experiments.command_ends import ended
from experiments.config.command_line import parse
from experiments.config.offered.commands_with_flags import PARTITION
from experiments.runs.data import data, names
from fl_sim.logs.folder import new_folder


def main(argv: Sequence[str] | None = None) -> int:
    """The command. Returns 0, or 2 for bad input."""
    warnings.formatwarning = lambda message, *_, **__: f"warning: {message}\n"
    try:
        call = parse(list(sys.argv[1:] if argv is None else argv), PARTITION)
        config = call.configs[0]
        task, _, partition = data(config)
        folder = new_folder(Path(config.out), f"partition-{config.task.name}-{config.partition.name}")
        rows, chosen = frame(partition, task.labels), config.partition.params
        if strength := chosen["feature_shift"]:
            rows = rows.assign(**shifts(chosen["seed"], rows["client"].to_numpy(), strength))
        if called := names(config, task, partition).get("clients"):
            rows["name"] = [_text(called[c]) for c in rows["client"]]
        rows.to_csv(folder / "clients.csv", index=False)
        title = f"{config.task.name}, {config.partition.name}, {len(partition)} clients"
        labels = [""] if task.labels is None else np.unique(task.labels).tolist()
        picture = save(partition_picture(counts(partition, task.labels), labels, title), folder / "partition.png")
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    numbers = {
        "task": config.task.name,
        "partition": config.partition.name,
        **config.partition.params,
        **summary(partition, task.labels),
    }
    if not call.quiet:
        for key, value in numbers.items():
            print(f"{key:16} {round(value, 4) if isinstance(value, float) else value}")
        print(f"\n{rows.head(20).to_string(index=False, float_format=lambda v: f'{v:.3f}')}")
        more = f"... and {len(rows) - 20} more in clients.csv" if len(rows) > 20 else ""
        print(f"{more}\npicture: {picture}")
    if call.json:
        print(json.dumps({**numbers, "picture": str(picture)}, default=float))
    return 0


def _text(name: object) -> str:
    return "; ".join(map(str, name)) if isinstance(name, list) else str(name)


if __name__ == "__main__":
    sys.exit(ended(main))
