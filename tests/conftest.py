"""Settings of all tests: one thread for each process, and no settings of the caller's environment."""

import os
import random
from pathlib import Path

import numpy as np
import pytest
import torch

os.environ.update(  # for processes that tests start
    OMP_NUM_THREADS="1",
    MKL_NUM_THREADS="1",
    FLWR_TELEMETRY_ENABLED="0",
    MPLBACKEND="Agg",
    RAY_worker_niceness="0",  # Ray's default is 15: beside busy processes a worker would take minutes to start
)
torch.set_num_threads(1)

REAL_DATA = os.environ.get("FL_SIM_DATA", "")


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """With ``-m ray``, files without such tests are not imported: that takes ten seconds."""
    if config.getoption("markexpr") != "ray" or collection_path.suffix != ".py":
        return None
    return True if "mark.ray" not in collection_path.read_text(encoding="utf-8") else None


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The longest test comes first, so that no worker of pytest-xdist is left alone with it at the end."""
    items.sort(key=lambda item: "experiments.backends" not in item.name)


@pytest.fixture(autouse=True)
def _seeded() -> None:
    """A test sees the same random numbers in every run, alone or beside others, so that none fails now and then."""
    random.seed(0)
    np.random.seed(0)  # noqa: NPY002  (the generator that apps and losses of users draw from)
    torch.manual_seed(0)


@pytest.fixture(autouse=True)
def _no_settings_of_the_machine(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """No data folder unless a test names one; decoded data and a key are kept beside the tests' files."""
    for name in [name for name in os.environ if name.startswith("FL_SIM_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("FL_SIM_CACHE", str(tmp_path_factory.getbasetemp() / "fl_sim_cache"))
    monkeypatch.setenv("FL_SIM_HOME", str(tmp_path_factory.getbasetemp() / "fl_sim_home"))


@pytest.fixture
def real_data(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of real data sets (``FL_SIM_DATA`` of the caller); skips where there is none.

    Decoding takes half a minute, so all workers of pytest-xdist keep the decoded data in one folder.
    """
    if not REAL_DATA:
        pytest.skip("FL_SIM_DATA names no folder of real data sets")
    base = tmp_path_factory.getbasetemp()
    shared = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base
    monkeypatch.setenv("FL_SIM_CACHE", str(shared / "fl_sim_real_data"))
    return Path(REAL_DATA)
