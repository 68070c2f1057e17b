"""``python -m experiments.bench.children.guard MARK FOLDER``: ends all child processes when the benchmark is gone.

It waits for the end of its stdin, which the operating system closes when the benchmark's process ends for any reason,
SIGKILL included. Then it kills every process whose mark begins with MARK and removes FOLDER.
"""

import shutil
import sys

from experiments.bench.children import process_tree


def main() -> None:
    """Wait for the end of stdin, then clean up."""
    _, mark, folder = sys.argv
    sys.stdin.read()
    process_tree.kill(mark)
    shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main()
