"""Trees and metrics as Flower's records and back; what is read once, and what is not serialised at all."""

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


def serialised(tree: Tree) -> ArrayRecord:
    """As it comes out of another process: every array is bytes."""
    return ArrayRecord({k: Array(np.ascontiguousarray(v.numpy()).reshape(v.shape)) for k, v in tree.items()})


def test_a_tree_comes_back_bit_for_bit_from_this_process_and_from_another() -> None:
    for record in (records.encode(MODEL), serialised(MODEL)):
        again = records.decode(record)
        assert tree.digest(again) == tree.digest(MODEL) and list(again) == list(MODEL)


def test_in_one_process_nothing_is_copied_or_serialised() -> None:
    own = tree.clone({k: v for k, v in MODEL.items() if k != "turned"})
    record = records.encode(own)
    for _ in range(2):
        taken = records.decode(record)
        assert all(taken[k].data_ptr() == own[k].data_ptr() for k in own) and taken["counter"].shape == ()
    assert not any("_data" in vars(array) for array in record.values())


def test_read_only_memory_is_copied() -> None:
    read_only = ArrayRecord()
    read_only["w"] = Held(np.frombuffer(bytes(8), np.float32))
    records.decode(read_only)["w"].add_(1)  # shared memory of Ray's, say
    assert read_only["w"].numpy().tolist() == [0.0, 0.0]


def test_a_serialised_record_gives_tensors_of_ones_own() -> None:
    record = serialised(MODEL)
    records.decode(record)["w"].add_(1)
    assert tree.digest(records.decode(record)) == tree.digest(MODEL)


def test_a_record_that_changes_is_decoded_as_it_is_now() -> None:
    record = records.encode(MODEL)
    record["w"] = Array(np.ones((2, 3), np.float32))
    assert records.decode(record)["w"].tolist() == [[1.0] * 3] * 2
    record["w"].data = Array(np.zeros((2, 3), np.float32)).data
    assert records.decode(record)["w"].tolist() == [[0.0] * 3] * 2
    del record["counter"]
    record["more"] = Array(np.ones(1))
    assert set(records.decode(record)) == set(MODEL) - {"counter"} | {"more"}


class TestHeld:
    def test_it_is_what_a_serialised_record_is(self) -> None:
        held, plain = records.encode(MODEL), serialised(MODEL)
        for k, array in plain.items():
            assert isinstance(held[k], Held) and isinstance(held[k], Array)
            assert (held[k].dtype, held[k].shape, held[k].stype) == (array.dtype, array.shape, array.stype)
            assert np.array_equal(held[k].numpy(), array.numpy())
        assert records.num_bytes(held) == records.num_bytes(plain)

    def test_its_bytes_and_its_id_are_those_of_an_array(self) -> None:
        value = {"w": torch.arange(4.0)}
        held, plain = records.encode(value)["w"], serialised(value)["w"]
        assert held.data == plain.data and held.object_id == plain.object_id  # so a receiver elsewhere reads it as one

    def test_numpy_is_a_copy(self) -> None:
        held = records.encode({"w": torch.zeros(3)})
        held["w"].numpy()[:] = 5
        assert records.decode(held)["w"].tolist() == [0.0, 0.0, 0.0]

    def test_it_pickles_as_a_plain_array(self) -> None:
        again = pickle.loads(pickle.dumps(records.encode({"w": torch.ones(2)})["w"]))
        assert type(again) is Array and again.numpy().tolist() == [1.0, 1.0]


CONTENT = RecordDict(
    {
        "arrays": records.encode({"w": torch.ones(1)}),
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
        record = records.encode(model)
        assert records.problem(record, sent, records.decode(record)) == records.problem(record, sent)
    assert "NaN" in records.problem(records.encode(spoiled), MODEL)
