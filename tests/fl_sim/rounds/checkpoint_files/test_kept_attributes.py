"""Attributes of strategies come back as they were, without a pickle for all shipped strategies and Flower's."""

import json
from typing import Any

import numpy as np
import pytest
import torch
from flwr.app import Array, ArrayRecord, ConfigRecord, MetricRecord
from flwr.serverapp import strategy as flower_strategies

from experiments.config.choices import offered
from experiments.runs.foreign_strategy import Personalised
from fl_sim.errors import ConfigError
from fl_sim.rounds.checkpoint_files.attribute_reader import Reader
from fl_sim.rounds.checkpoint_files.attribute_writer import Writer
from fl_sim.rounds.checkpoint_files.kept_attributes import Built, kept_of, restore
from fl_sim.wire import records
from strategies.base import Strategy


def there_and_back(value: Any) -> Any:
    """A value through JSON and tensors."""
    writer = Writer()
    rows, odd = writer.attributes({"value": value}, None)
    assert not odd
    return Reader(writer.tensors).attributes(json.loads(json.dumps(rows)))["value"]


PLAIN: list[Any] = [
    None,
    True,
    10**40,
    -0.0,
    float("inf"),
    1 + 2j,
    "ä\ud800",
    b"\0\xff",
    range(2, 9, 3),
    [1, [2, (3, "x", [])]],
    {"a": 1, 2: {"b": None}, (1, 2): 3},
    {3, 1},
    frozenset({2}),
]


@pytest.mark.parametrize("value", PLAIN, ids=repr)
def test_plain_values(value: Any) -> None:
    found = there_and_back(value)
    assert type(found) is type(value) and repr(found) == repr(value)


@pytest.mark.parametrize(
    "value",
    [
        np.float64(0.1),
        np.int8(-3),
        np.zeros((), np.float32),
        np.asfortranarray(np.arange(6.0).reshape(2, 3)),
        np.array([["ab", "c"]]),
        np.empty((0, 3), np.uint16),
        np.array([2.5], ">f8"),
        np.array(["2020-01-01"], "datetime64[D]"),
    ],
    ids=repr,
)
def test_arrays_keep_type_bytes_and_order_in_memory(value: Any) -> None:
    found = there_and_back(value)
    assert type(found) is type(value) and found.dtype == value.dtype and found.shape == value.shape
    assert found.tobytes("A") == value.tobytes("A")
    if isinstance(value, np.ndarray):
        assert (found.strides == value.strides or not value.size) and found.flags.writeable


def test_tensors_keep_their_order_in_memory() -> None:
    last = torch.arange(24.0).reshape(1, 2, 3, 4).to(memory_format=torch.channels_last)
    for value in (last, torch.tensor(3), torch.ones(2, dtype=torch.bfloat16), torch.arange(6).reshape(2, 3).t()):
        found = there_and_back(value)
        assert found.equal(value) and found.stride() == value.stride() and found.dtype == value.dtype


def test_flowers_records() -> None:
    record = records.encode({"a": torch.ones(2, 2), "b": torch.tensor(1.5)})
    found = there_and_back([record, ArrayRecord([np.ones(3)]), MetricRecord({"x": [1.5]}), ConfigRecord({"y": b"z"})])
    assert isinstance(found[0]["a"], Array) and found[0]["a"].numpy().tolist() == [[1, 1], [1, 1]]
    assert found[1]["0"].numpy().tolist() == [1, 1, 1] and found[2]["x"] == [1.5] and found[3]["y"] == b"z"


def test_what_is_shared_stays_shared() -> None:
    array: Any = np.ones(2)
    ring: list[Any] = [array]
    ring.append(ring)
    found = there_and_back({"a": array, "b": (array, ring), "c": ring})
    assert found["a"] is found["b"][0] is found["c"][0] and found["c"][1] is found["c"] is found["b"][1]


def test_what_only_pickle_can_hold_is_odd_and_leaves_nothing_behind() -> None:
    class Own(dict[str, int]):
        pass

    ring: tuple[list[Any]] = ([],)
    ring[0].append(ring)
    odd = {
        "own": {"x": np.ones(1), "y": Own()},
        "f": len,
        "o": np.array([None]),
        "g": torch.ones(1, requires_grad=True),
        "r": ring,
    }
    writer = Writer()
    rows, found = writer.attributes({**odd, "k": [np.ones(1)]}, None)
    assert found == odd and [name for name, _ in rows] == ["k"] and len(writer.tensors) == 1
    assert len(writer.objects) == 2


FOREIGN = ["FedAvg", "FedAvgM", "FedAdam", "FedYogi", "FedAdagrad", "FedMedian", "QFedAvg"]


@pytest.mark.parametrize("name", FOREIGN)
def test_flowers_strategies_need_no_pickle(name: str) -> None:
    options = {"fraction_evaluate": 0.0, "min_train_nodes": 1, "min_available_nodes": 1}
    more: dict[str, Any] = {"server_momentum": 0.9} if name == "FedAvgM" else {}
    more = {"client_learning_rate": 0.1} if name == "QFedAvg" else more
    cls: Any = getattr(flower_strategies, name)
    first, second = (Personalised(cls(**options, **more), 3) for _ in range(2))
    built = Built(first)
    model = {"w": torch.tensor([1.0, 2.0]), "b": torch.tensor(0.5)}
    inner = first.strategy
    inner.__dict__.update(current_arrays=records.encode(model), m_t={"w": np.ones(2), "b": np.float64(0.1) * 1})
    writer = Writer()
    rows, odd = writer.attributes(kept_of(first), built)
    assert odd == {}
    restore(second, Reader(writer.tensors).attributes(json.loads(json.dumps(rows))))
    new = vars(second.strategy)
    assert new.keys() == vars(inner).keys() and new["train_metrics_aggr_fn"] is vars(inner)["train_metrics_aggr_fn"]
    assert type(new["m_t"]["b"]) is np.float64 and new["current_arrays"]["w"].numpy().tolist() == [1, 2]
    other = Personalised(flower_strategies.Bulyan(**options), 3)
    with pytest.raises(ConfigError, match=r"strategy.strategy: it is flwr.*Bulyan.*and was flwr"):
        restore(other, Reader(writer.tensors).attributes(rows))


@pytest.mark.parametrize("name", sorted(offered("strategy")))
def test_shipped_strategies_need_no_pickle(name: str) -> None:
    cls: Any = offered("strategy")[name]
    first, second = cls(), cls()
    built = Built(first)
    first.server_state = {"m": {"w": torch.tensor([1.0])}, "n": {}}
    first.__dict__.update(unseen={4, 2}, dropped=[1], rounds=7, model={"w": torch.ones(1)})
    writer = Writer()
    rows, odd = writer.attributes(kept_of(first), built)
    assert odd == {}
    restore(second, Reader(writer.tensors).attributes(rows))
    assert isinstance(second, Strategy) and second.server_state["m"]["w"].equal(torch.tensor([1.0]))
    assert not hasattr(second, "model") and second.dropped == [1]


def test_a_function_that_the_run_exchanged_is_odd() -> None:
    strategy = flower_strategies.FedAvg()
    built = Built(strategy)
    strategy.train_metrics_aggr_fn = json.dumps
    rows, odd = Writer().attributes(kept_of(strategy), built)
    assert list(odd) == ["train_metrics_aggr_fn"] and len(rows) > 5
