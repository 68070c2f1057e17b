"""``python -m experiments.bench.table``: writes measured figures into documents.

See ``experiments.bench.tables.documents``.
"""

import sys

from experiments.bench.tables.documents import main

if __name__ == "__main__":
    sys.exit(main())
