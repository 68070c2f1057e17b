"""Trees and metrics as Flower's records and back: records that are read once, and arrays that are not serialised."""

import pickle

import numpy as np
import pytest
import torch
from flwr.app import Array, ArrayRecord, ConfigRecord, MetricRecord, RecordDict

from fl_sim import tree
from fl_sim.tree import Tree
from fl_sim.wire import records
from fl_sim.wire.flower import Held

MODEL: Tree = {
    "w": torch.arange(6.0).reshape(2, 3),
    "turned": torch.arange(6.0).reshape(2, 3).T,
    "counter": torch.tensor(7),
    "none": torch.zeros(0, 2, dtype=torch.float64),
}


def test_a_tree_comes_back_bit_for_bit_and_is_the_callers_own() -> None:
    record = records.arrays(MODEL)
    for read in (records.model, records.shared):
        assert tree.digest(read(record)) == tree.digest(MODEL)
    first, second = records.model(record), records.model(record)
    first["w"].add_(1)
    assert tree.digest(second) == tree.digest(records.model(record)) == tree.digest(MODEL)


def test_arrays_for_one_reader_are_passed_on_without_a_copy() -> None:
    own = tree.clone({k: v for k, v in MODEL.items() if k != "turned"})
    taken = records.owned(records.held(own))
    assert all(taken[k].data_ptr() == own[k].data_ptr() for k in own) and taken["counter"].shape == ()
    read_only = ArrayRecord()
    read_only["w"] = Held(np.frombuffer(bytes(8), np.float32))
    records.owned(read_only)["w"].add_(1)  # a copy, as the memory may be shared with other processes
    assert read_only["w"].numpy().tolist() == [0.0, 0.0]
    assert tree.digest(records.owned(records.arrays(MODEL))) == tree.digest(MODEL)


class TestShared:
    def test_a_record_is_read_once(self) -> None:
        record = records.arrays(MODEL)
        first, second = records.shared(record), records.shared(record)
        assert first is not second and all(
            first[k] is second[k] for k in MODEL
        )  # a dict of one's own, tensors in common

    def test_another_record_of_the_same_arrays_is_not_read_again(self) -> None:
        record = records.arrays(MODEL)
        same = ArrayRecord()
        for k in reversed(list(record)):
            same[k] = record[k]
        first, second = records.shared(record), records.shared(same)
        assert list(second) == list(reversed(list(first))) and second["w"] is first["w"]

    def test_a_changed_record_is_read_again(self) -> None:
        record = records.arrays(MODEL)
        old = records.shared(record)
        record["w"] = Array(np.ones((2, 3), np.float32))
        assert records.shared(record)["w"].tolist() == [[1.0] * 3] * 2 and old["w"].tolist() == MODEL["w"].tolist()
        record["w"].data = Array(np.zeros((2, 3), np.float32)).data
        assert records.shared(record)["w"].tolist() == [[0.0] * 3] * 2
        del record["counter"]
        assert set(records.shared(record)) == set(MODEL) - {"counter"}
        record["more"] = Array(np.ones(1))
        assert set(records.shared(record)) == set(MODEL) - {"counter"} | {"more"}

    def test_a_record_of_the_same_size_and_other_names_is_another(self) -> None:
        assert set(records.shared(records.arrays({"a": torch.ones(1)}))) == {"a"}
        assert set(records.shared(records.arrays({"b": torch.ones(1)}))) == {"b"}


class TestHeld:
    def test_it_is_what_a_serialised_record_is(self) -> None:
        held, plain = records.held(MODEL), records.arrays(MODEL)
        for k, array in plain.items():
            assert isinstance(held[k], Held) and isinstance(held[k], Array)
            assert (held[k].dtype, held[k].shape, held[k].stype) == (array.dtype, array.shape, array.stype)
            assert np.array_equal(held[k].numpy(), array.numpy())
        assert tree.digest(records.model(held)) == tree.digest(MODEL) and records.num_bytes(held) == records.num_bytes(
            plain
        )

    def test_its_bytes_and_its_id_are_those_of_an_array(self) -> None:
        value = torch.arange(4.0)
        held, plain = records.held({"w": value})["w"], records.arrays({"w": value})["w"]
        assert held.data == plain.data and held.object_id == plain.object_id  # so a receiver elsewhere reads it as one

    def test_a_reader_gets_a_copy(self) -> None:
        held = records.held({"w": torch.zeros(3)})
        records.model(held)["w"].add_(1)
        held["w"].numpy()[:] = 5
        assert records.model(held)["w"].tolist() == [0.0, 0.0, 0.0]

    def test_it_pickles_as_a_plain_array(self) -> None:
        again = pickle.loads(pickle.dumps(records.held({"w": torch.ones(2)})["w"]))
        assert type(again) is Array and again.numpy().tolist() == [1.0, 1.0]


CONTENT = RecordDict(
    {
        "arrays": records.arrays({"w": torch.ones(1)}),
        "metrics": MetricRecord({"loss": 1.0, "n": 2}),
        "more": MetricRecord({"n": 3}),
        "config": ConfigRecord({"lr": 0.1}),
    }
)


@pytest.mark.parametrize(
    "kind, view", [(ArrayRecord, "array_records"), (MetricRecord, "metric_records"), (ConfigRecord, "config_records")]
)
def test_records_of_a_kind_are_those_of_flowers_views(kind: type, view: str) -> None:
    found, expected = records.of(CONTENT, kind), getattr(CONTENT, view)
    assert list(found) == list(expected) and all(found[k] is expected[k] for k in found)


def test_numbers_are_all_metrics_the_last_of_a_name() -> None:
    assert records.numbers(CONTENT) == {"loss": 1.0, "n": 3} and records.numbers(RecordDict()) == {}


def test_a_problem_is_found_in_what_was_decoded_as_in_the_record() -> None:
    spoiled = {**MODEL, "w": MODEL["w"] * float("nan")}
    for model, sent in (
        (MODEL, MODEL),
        (spoiled, MODEL),
        (MODEL, {**MODEL, "w": torch.ones(1)}),
        ({"w": MODEL["w"]}, MODEL),
        (spoiled, None),
    ):
        record = records.arrays(model)
        assert records.problem(record, sent, records.model(record)) == records.problem(record, sent)
    assert "NaN" in records.problem(records.arrays(spoiled), MODEL)
