"""``python -m experiments.bench.children.guard MARK FOLDER``: ends all children when the benchmark is gone, however it went. No paper.

Waits for the end of its stdin, which the operating system closes when the benchmark's process dies, by SIGKILL too; then
removes the folder of their files.
"""

import shutil
import sys

from experiments.bench.children import process_tree


def main() -> None:
    """Wait, then clear up."""
    _, mark, folder = sys.argv
    sys.stdin.read()
    process_tree.kill(mark)
    shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main()
