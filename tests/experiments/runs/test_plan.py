"""Settings that would do nothing, as only a run's data show."""

import pytest

from experiments.config.recipe_files import make
from experiments.runs.resume import ready
from fl_sim.errors import ConfigError
from tests.experiments.config.setting_walks import WORLD


def test_a_partition_seed_of_natural_clients_acts_only_where_something_is_drawn() -> None:
    settings = {"task": f"{WORLD}:pictures", "partition": "natural", "model": "lr", "partition.seed": 3}
    with pytest.raises(ConfigError, match=r"^partition.seed = 3: each natural client is one client, so that nothing"):
        ready(make(**settings))
    assert ready(make(**settings, **{"partition.feature_shift": 0.5}))
