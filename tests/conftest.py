"""Shared by all tests: one thread a process, and nothing of the caller's environment."""

import os
from pathlib import Path

import pytest
import torch

os.environ.update(
    OMP_NUM_THREADS="1", MKL_NUM_THREADS="1", FLWR_TELEMETRY_ENABLED="0", MPLBACKEND="Agg"
)  # for processes that tests start
torch.set_num_threads(1)

REAL_DATA = os.environ.get("FL_SIM_DATA", "")


@pytest.fixture(autouse=True)
def _no_settings_of_the_machine(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """No data folder unless a test names one; decoded data goes beside the tests' files, not to the user's cache."""
    for name in [name for name in os.environ if name.startswith("FL_SIM_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("FL_SIM_CACHE", str(tmp_path_factory.getbasetemp() / "fl_sim_cache"))


@pytest.fixture
def real_data() -> Path:
    """The folder of real data sets (``FL_SIM_DATA`` of the caller); skips where there is none."""
    if not REAL_DATA:
        pytest.skip("FL_SIM_DATA names no folder of real data sets")
    return Path(REAL_DATA)
