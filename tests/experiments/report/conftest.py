"""Small runs for the tests of pages, written without training."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from fl_sim.logs.kept import partition_file
from fl_sim.logs.writer import RoundLog

MakeRun = Callable[..., Path]
DONE = {"status": "completed", "seconds": 12.5, "versions": {"python": "3.11.7", "torch": "2.9"}}


@pytest.fixture
def make_run(tmp_path: Path) -> MakeRun:
    """A function that writes a run: round r takes 2 s and .5 s to evaluate, 1 MB down and .5 MB up."""

    def make(
        name: str,
        accuracies: Sequence[float | None] = (0.1, 0.5, 0.8),
        seed: int = 0,
        strategy: str = "fedavg",
        summary: dict[str, Any] | None = DONE,
        events: Sequence[dict[str, Any]] = (),
        **settings: Any,
    ) -> Path:
        more = "".join(f"{key} = {value}\n" for key, value in settings.items())
        config = f'seed = {seed}\n[strategy]\nname = "{strategy}"\n{more}'
        with RoundLog.create(tmp_path / "made", name, config) as log:
            log.event("start", schema=2, commit="abc1234", cpu="a processor", cores=2)
            for number, accuracy in enumerate(accuracies):
                moved = {"seconds": 2.0, "bytes_down": 1e6, "bytes_up": 5e5} if number else {"seconds": 0.0}
                row = {"round": number, "accuracy": accuracy, "loss": 2.0 - number / 10, "evaluate_seconds": 0.5}
                log.round({**row, **moved, "digest": f"{seed}{number}" * 32})
            for event in events:
                log.event("client_failed", **event)
            if summary is not None:
                log.summary(summary)
        partition_file.write(log.path, [0, 1], ["cat", "dog"], [[3, 0], [1, 4]])
        (tmp_path / "runs").mkdir(exist_ok=True)
        return log.path.rename(tmp_path / "runs" / name)

    return make
