"""``python -m clients.node ...``: runs ``flower-supernode ...`` and explains why a SuperLink refuses the connection.

See ``clients.device.supernode``.
"""

import sys

from clients.device.supernode import main

if __name__ == "__main__":
    sys.exit(main())
