"""A user's own components: by ``module:Name`` from the working folder, and as objects from Python."""

import sys
import tomllib
from pathlib import Path

import numpy as np
import pytest
from torch import nn

from experiments.config.recipe_files import make
from experiments.config.stored import stored_config
from fl_sim.errors import ConfigError
from fl_sim.learning.arrays import from_arrays
from strategies.fedprox import FedProx

USERS = """
from dataclasses import dataclass

@dataclass
class Mine:
    '''A strategy of a user.'''
    kind = "strategy"
    refuses = ("local.lr", "rounds")
    power: float = 2.0
    '''How strong.'''
    table: dict[str, int] | None = None
    limit: float | None = 1.0
    least: float | None = None

class Needs:
    def __init__(self, power): ...

READY = object()
"""


@pytest.fixture
def users_module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A module in the working folder, which is not on ``sys.path``."""
    (tmp_path / "users_things.py").write_text(USERS)
    (tmp_path / "users_broken.py").write_text("1 +")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [p for p in sys.path if p])
    monkeypatch.delitem(sys.modules, "users_things", raising=False)
    return "users_things"


def test_a_users_own_class(users_module: str) -> None:
    config = make(strategy={"name": f"{users_module}:Mine", "power": 3})
    assert (config.strategy.name, config.strategy.params) == (
        f"{users_module}:Mine",
        {"power": 3.0, "limit": 1.0, "least": None},
    )
    assert config.strategy.component(**config.strategy.params).power == 3.0 and not config.strategy.is_object
    with pytest.raises(ConfigError, match="rounds = 3: means nothing to"):
        make(strategy=f"{users_module}:Mine", rounds=3)
    assert "rounds" not in config.to_dict() and stored_config(tomllib.loads(config.to_toml())) == config
    assert make(task=f"{users_module}:READY").task.is_object


def test_none_for_a_number_whose_default_is_another_is_refused(users_module: str) -> None:
    """TOML has no None: the stored config would repeat the run with the default."""
    why = r"strategy.limit = None: a run's config has no place for None, and would repeat the run with the default 1.0"
    with pytest.raises(ConfigError, match=why):
        make(strategy={"name": f"{users_module}:Mine", "limit": None})
    config = make(strategy={"name": f"{users_module}:Mine", "limit": 2, "least": None})
    assert stored_config(config.to_dict()) == config and config.strategy.params["least"] is None


@pytest.mark.parametrize(
    "name, message",
    [
        ("users_things:Nobody", "has no attribute 'Nobody'"),
        ("users_nowhere:Mine", "No module named 'users_nowhere'"),
        ("users_broken:Mine", "its module fails when imported: SyntaxError"),
        ("users_things:Needs", "parameter 'power' has no default"),
    ],
)
def test_a_users_own_that_cannot_be_used(users_module: str, name: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        make(strategy=name)
    assert str(caught.value).startswith(f"strategy.name = {name!r}: ")


def test_objects_from_python_are_carried_and_written_as_text() -> None:
    task = from_arrays(np.zeros((8, 3), np.float32), np.arange(8) % 2, name="mine")
    net = nn.Linear(3, 2)
    config = make(task=task, model=net, strategy=FedProx(mu=0.5), rounds=2)
    assert config.task.component is task and config.model.component is net and config.strategy.is_object
    written = config.to_dict()
    assert written["task"] == {"name": "mine", "turns": 0} and written["model"] == {
        "name": "torch.nn.modules.linear:Linear"
    }
    assert written["strategy"] == {"name": "fedprox", "mu": 0.5}
    by_class = make(strategy={"name": FedProx, "mu": 0.5}).strategy
    assert by_class == config.strategy and not by_class.is_object
    with pytest.raises(ConfigError, match="strategy.mu = 1.0: strategy fedprox takes no such parameter"):
        make(strategy={"name": FedProx(mu=0.5), "mu": 1.0})


def test_a_module_that_ends_the_process_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "leaves.py").write_text("raise SystemExit(0)")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ConfigError, match="task.name = 'leaves:make': its module fails when imported: SystemExit: 0"):
        make(task="leaves:make")


def test_an_error_has_the_name_that_the_user_gave() -> None:
    with pytest.raises(ConfigError, match="model.name = 'torch:load': its parameter 'f' has no default"):
        make(model="torch:load")


def test_a_table_for_a_parameter_of_a_strategy_is_named_as_that() -> None:
    with pytest.raises(ConfigError, match=r"strategy\.layer = {'a': 1}: is one value, not a table"):
        make(strategy={"name": "moon", "layer": {"a": 1}})
    with pytest.raises(ConfigError, match=r"strategy\.maml\.mu = 1: maml is no strategy of this call"):
        make(strategy={"name": "fedprox", "maml": {"mu": 1}})
