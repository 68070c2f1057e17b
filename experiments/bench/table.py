"""``python -m experiments.bench.table``: the measured figures as Markdown (``experiments.bench.tables.readme``)."""

import sys

from experiments.bench.tables.readme import main

if __name__ == "__main__":
    sys.exit(main())
