"""``python -m clients.node ...``: ``flower-supernode ...`` that says why a SuperLink refuses it
(``clients.device.supernode``).
"""

import sys

from clients.device.supernode import main

if __name__ == "__main__":
    sys.exit(main())
