"""Settings of a worker's process."""

from typing import Any

import pytest
import torch

from fl_sim.executors.ray.worker import ComputeSettings


def test_settings_that_a_process_has_already_import_no_compiler(monkeypatch: pytest.MonkeyPatch) -> None:
    """``torch.use_deterministic_algorithms`` imports ``torch._inductor``: 2 of 6 s of a worker's start."""
    calls: list[tuple[bool, bool]] = []

    def record(mode: bool, *, warn_only: bool = False) -> None:
        calls.append((mode, warn_only))

    monkeypatch.setattr(torch, "use_deterministic_algorithms", record)
    here: dict[str, Any] = {"threads": torch.get_num_threads(), "paths": ()}
    ComputeSettings(**here).apply()
    assert calls == []
    for asked in ((True, False), (True, True), (False, True)):
        ComputeSettings(**here, deterministic=asked[0], warn_only=asked[1]).apply()
        assert calls.pop() == asked
