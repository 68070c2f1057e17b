"""Sleep that takes no time: what a forked process says that it sleeps counts as time, and nothing else does.

So a test of a time limit means the same on a busy machine, where anything may take seconds.
"""

import select
import time
from pathlib import Path

LOOK_S = 0.005


class VirtualSleep:
    """Shared by this process and those that it forks, by two files.

    Parameters
    ----------
    folder : Path
        Where the files are; it is made.
    """

    def __init__(self, folder: Path) -> None:
        self.slept, self.seen = folder / "slept", folder / "seen"
        folder.mkdir()
        self.slept.touch()
        self.seen.touch()

    def sleep(self, seconds: float) -> None:
        """In the forked process: ``seconds`` pass. One that has slept too long is killed here."""
        with self.slept.open("a") as file:
            file.write(f"{seconds}\n")
            count = file.tell()
        while self.seen.stat().st_size < count:
            time.sleep(LOOK_S)

    def silent(self, reading: int, seconds: float) -> bool:
        """In the place of ``forked.silent``: whether more than ``seconds`` pass before something comes."""
        passed = 0.0
        while True:
            known = self.seen.stat().st_size
            new = self.slept.read_text()[known:]
            if select.select([reading], [], [], 0 if new else LOOK_S)[0]:  # it came before what is new
                return False
            if new.endswith("\n"):
                passed += sum(map(float, new.split()))
                if passed > seconds:
                    self.slept.write_text("")
                    self.seen.write_text("")
                    return True
                with self.seen.open("a") as file:
                    file.write(new)
