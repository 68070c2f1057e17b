"""``python -m experiments.partition [RECIPE] [--key value ...]``: look at a partition before training on it. No paper.

The flags are those of ``experiments.run``; the statistics and the client-by-label picture go to a new folder in ``--out``.
"""

import json
import sys
from collections.abc import Sequence
from pathlib import Path

from experiments.analysis.partition_stats import draw, frame, summary
from experiments.config.command_line import parse
from experiments.runs.data import data
from fl_sim.logs.folder import new_folder


def main(argv: Sequence[str] | None = None) -> int:
    """The command. Returns 0, or 2 for bad input."""
    try:
        words = list(sys.argv[1:] if argv is None else argv)
        asked = parse(words)
        config = asked.configs[0]
        task, _, partition = data(config)
        folder = new_folder(Path(config.out), f"partition-{config.task.name}-{config.partition.name}")
        rows = frame(partition, task.labels)
        rows.to_csv(folder / "clients.csv", index=False)
        picture = draw(
            partition,
            task.labels,
            folder / "partition.png",
            f"{config.task.name}, {config.partition.name}, {len(partition)} clients",
        )
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    numbers = {
        "task": config.task.name,
        "partition": config.partition.name,
        **config.partition.params,
        **summary(partition, task.labels),
    }
    if not asked.quiet:
        print(
            "\n".join(
                f"{key:16} {round(value, 4) if isinstance(value, float) else value}" for key, value in numbers.items()
            )
        )
        print(f"\n{rows.head(20).to_string(index=False, float_format=lambda v: f'{v:.3f}')}")
        print(
            f"{'... and ' + str(len(rows) - 20) + ' more in clients.csv' if len(rows) > 20 else ''}\npicture: {picture}"
        )
    if asked.json:
        print(json.dumps({**numbers, "picture": str(picture)}, default=float))
    return 0


if __name__ == "__main__":
    sys.exit(main())
