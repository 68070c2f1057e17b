"""Names of things that are no components, and numbers of clients of Flower's strategies."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from experiments.config.recipe_files import make
from experiments.run import Outcome, run
from experiments.runs.plan import check_used
from experiments.runs.setup import build
from fl_sim import from_arrays
from fl_sim.errors import ConfigError
from fl_sim.population.partition import Partition

FLOWER = "flwr.serverapp.strategy:FedAvg"


@pytest.mark.parametrize(
    "settings",
    [
        {"partition": "os:getcwd"},
        {"strategy": "os:getcwd"},
        {"model": "os:getcwd"},
        {"task": "os:getcwd"},
        {"strategy": "os:path"},
        {"strategy": "flwr.serverapp.strategy:Strategy"},
        {"task": "collections.abc:Mapping"},
        {"model": "torch.nn:Module"},
        {"model": "builtins:exit"},
    ],
)
def test_what_is_no_component_is_refused_by_name(settings: dict[str, str]) -> None:
    [(kind, name)] = settings.items()
    with pytest.raises(ConfigError, match=f"^{kind}.name = '{name}': (cannot be made: |makes a |is or makes a )"):
        build(make(**settings, clients=2))


def test_the_default_of_flower_s_strategies_acts_where_it_is_given(tmp_path: Path) -> None:
    for given, evaluated in (({}, 0), ({"strategy.fraction_evaluate": 1.0}, 2)):
        outcome = run(strategy=FLOWER, clients=2, rounds=1, model="lr", out=tmp_path, **given)
        assert isinstance(outcome, Outcome)
        assert (outcome.log.clients["phase"] == "evaluate").sum() == evaluated
    with pytest.raises(ConfigError, match="cohort = 2, strategy.fraction_train = 1.0: both say"):
        build(make(strategy=FLOWER, clients=4, cohort=2, **{"strategy.fraction_train": 1.0}))
    personal: dict[str, Any] = {"personalize_steps": 1, "partition.held_out": 0.2, "strategy.fraction_evaluate": 1.0}
    with pytest.raises(ConfigError, match="strategy.fraction_evaluate = 1.0: personal evaluation takes the place"):
        build(make(strategy=FLOWER, clients=2, **personal))


@pytest.mark.parametrize(
    "settings, message",
    [
        ({"chunk": 2, "model": "cnn"}, "chunk = 2: acts in the engine vmap, but this run is on the loop"),
        ({"system.stragglers": 0.01}, "system.stragglers = 0.01: of 4 clients a round that is none"),
        ({"task": "sinusoid", "target": 0.5}, "target = 0.5: task sinusoid has no accuracy"),
        ({"validation": 1e-5}, "validation = 1e-05: of 1438 training samples that is none"),
        ({"task.class_axis": -1}, "task.class_axis = -1: does nothing here: each sample of task digits has one label"),
        (
            {"task": "sinusoid", "stop.target": 0.5, "stop.on": "test"},
            "stop.target = 0.5: task sinusoid has no accuracy",
        ),
    ],
)
def test_what_only_data_and_network_show_to_do_nothing_is_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        check_used(build(make(clients=4, **settings)))


def test_natural_clients_and_a_partition_that_is_passed_draw_nothing() -> None:
    task = from_arrays([[float(k)] for k in range(12)], [k % 2 for k in range(12)], clients=[k % 3 for k in range(12)])
    with pytest.raises(ConfigError, match="partition.seed = 5: each natural client is one client"):
        check_used(build(make(task=task, partition={"name": "natural", "seed": 5})))
    check_used(build(make(task=task, partition={"name": "natural", "seed": 5}, clients=2)))
    passed = Partition.of([[0, 1], [2, 3]])
    with pytest.raises(ConfigError, match="clients = 3: the partition that was passed has 2 clients"):
        check_used(build(make(task=task, partition=passed, clients=3)))


def test_no_client_may_own_more_samples_than_max_examples(tmp_path: Path) -> None:
    """A device could not claim more either, so that simulation and deployment refuse the same."""
    samples = np.zeros((12, 2), np.float32)
    given = {"task": from_arrays(samples, np.arange(12) % 3), "model": "lr", "clients": 3, "partition": "iid"}
    settings = {**given, "rounds": 1, "cohort": 3, "out": str(tmp_path), "quiet": True}
    assert run(**settings, system={"max_examples": 4}).summary["status"] == "completed"
    with pytest.raises(ConfigError, match=r"max_examples = 3: a client of this partition owns 4 .*; give at least 4"):
        run(**settings, system={"max_examples": 3})
