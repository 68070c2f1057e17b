"""Omniglot: episodes, their classes and what they hold out.

The fake file has 28 characters of 4 alphabets, 20 pictures each. Of 28 characters round(28 * 1200 / 1623) = 21 train.
"""

from pathlib import Path

import numpy as np
import pytest
import torch

from clients.partitions.natural import natural
from clients.shares import divided, without_validation
from clients.tasks.omniglot import TURNED, omniglot
from fl_sim.learning.task import Task
from strategies.maml import split


def drawn(task: Task, client: int) -> np.ndarray:
    """(shots + queries, K, 3): character, picture and quarter turns of each sample of a client."""
    assert task.clients is not None
    x = task.train["x"].numpy()[task.clients == client].reshape(-1, task.turns)
    return np.stack([x // TURNED // 20, x // TURNED % 20, x % TURNED], 2)


def test_an_episode_has_k_classes_and_different_pictures_of_each(fake_data: Path) -> None:
    task = omniglot(str(fake_data), clients=30, holdout_clients=5, ways=4, shots=2, queries=3)
    assert task.train["y"].tolist() == [0, 1, 2, 3] * 5 * 30 and task.turns == 4 and task.inputs == (1, 28, 28)
    for c in range(30):
        own = drawn(task, c)
        kinds = {tuple(kind) for kind in own[0][:, [0, 2]].tolist()}
        assert len(kinds) == 4 and all((own[j][:, [0, 2]] == own[0][:, [0, 2]]).all() for j in range(5))
        assert all(len(set(own[:, w, 1])) == 5 for w in range(4))
    trained, unseen = ({int(k) for c in ids for k in drawn(task, c)[0, :, 0]} for ids in (range(25), range(25, 30)))
    assert len(trained) == 21 and not trained & unseen and len(unseen) <= 7
    assert set(drawn(task, 0)[0, :, 2]) | set(drawn(task, 1)[0, :, 2]) != {0}
    assert all((drawn(task, c)[0, :, 2] == 0).all() for c in range(25, 30))  # test characters are not turned


def test_pictures_are_those_of_the_file_turned(fake_data: Path) -> None:
    task = omniglot(str(fake_data), clients=8, ways=3)
    with np.load(fake_data / "omniglot.npz") as file:
        images = file["images"].reshape(-1, 28, 28)
    x = task.transform({k: v[:48] for k, v in task.train.items()}, None)["x"]
    for row in range(48):
        index = int(task.train["x"][row])
        expected = np.rot90(images[index // TURNED], index % TURNED) / np.float32(255)
        assert np.array_equal(x[row, 0].numpy(), expected)


def test_an_episode_depends_on_its_number_and_the_seed_alone(fake_data: Path) -> None:
    few, more = (omniglot(str(fake_data), clients=n, holdout_clients=2, seed=3) for n in (5, 9))
    assert all(np.array_equal(drawn(few, c), drawn(more, c)) for c in range(3))
    assert all(np.array_equal(drawn(few, 3 + c), drawn(more, 7 + c)) for c in range(2))
    assert not np.array_equal(drawn(omniglot(str(fake_data), clients=5, seed=4), 0), drawn(few, 0))


def test_an_episode_by_alphabet_is_of_one_alphabet_turned_alike(fake_data: Path) -> None:
    task = omniglot(str(fake_data), clients=40, holdout_clients=10, by="alphabet")
    owners = [{int(k) // 7 for k in drawn(task, c)[0, :, 0]} for c in range(40)]
    assert all(len(one) == 1 for one in owners)
    assert set.union(*owners[:30]) == {0, 1, 2} and set.union(*owners[30:]) == {3}
    assert all(len(set(drawn(task, c)[0, :, 2])) == 1 for c in range(40))


def test_what_a_client_holds_out_is_equally_many_of_each_class(fake_data: Path) -> None:
    """shots = 1 and queries = 3: a share of .75 holds out 3 of the 4 pictures of each class."""
    task = omniglot(str(fake_data), clients=6, holdout_clients=2, shots=1, queries=3)
    partition = divided(task, natural, 6, 0, 0.0, "natural", (2, 0.75))
    assert [partition.sizes(c) for c in range(6)] == [(20, 0)] * 4 + [(5, 15)] * 2
    for c in range(6):
        own = partition.client(c)
        assert sorted(own) == list(range(20 * c, 20 * c + 20))
        assert task.train["y"][torch.from_numpy(own)].tolist() == [0, 1, 2, 3, 4] * 4
    assert len({tuple(partition.client(c)[:5] % 20) for c in (4, 5)}) == 2  # the shots are drawn, for each client anew


def test_support_and_query_have_equally_many_of_each_class() -> None:
    support, query = split(12, 7, support=3, query=6, turns=3)
    assert (support % 3).tolist() == [0, 1, 2] and (query % 3).tolist() == [0, 1, 2] * 2
    assert len({*support, *query}) == 9 and len({tuple(split(12, key, 3, 0, 3)[0]) for key in range(9)}) > 3
    halves = split(12, 7, turns=3)
    assert [len(half) for half in halves] == [6, 6] and not {*halves[0]} & {*halves[1]}
    with pytest.raises(ValueError, match="support_size = 4: each client has 3 classes.*a multiple of 3"):
        split(12, 7, support=4, turns=3)


def test_what_would_mix_episodes_is_refused(fake_data: Path) -> None:
    task = omniglot(str(fake_data), clients=6)
    with pytest.raises(ValueError, match="partition.name = 'mine': each client of task 'omniglot' numbers its classes"):
        divided(task, [np.arange(task.num_train)], 1, 0, 0.0, "mine")
    with pytest.raises(ValueError, match="clients = 3: the 6 clients of task 'omniglot'.*cannot be grouped"):
        divided(task, natural, 3, 0, 0.0, "natural")
    with pytest.raises(ValueError, match="validation = 0.5: would take samples out of the episodes"):
        without_validation(task, 0, 0.5)


@pytest.mark.parametrize(
    "given, message",
    [
        ({"ways": 1}, "task.ways = 1"),
        ({"ways": 8, "by": "alphabet"}, "task.ways = 8: there are 0 training characters of one alphabet"),
        ({"shots": 6}, "task.shots = 6, task.queries = 15: a character has 20 pictures"),
        ({"holdout_clients": 1000}, "holdout_clients = 1000: of 1000 clients"),
        ({"seed": -1}, "task.seed = -1"),
        ({"data_dir": "/nowhere"}, "data_dir = '/nowhere': no such folder; name one that holds omniglot.npz"),
    ],
)
def test_bad_numbers_are_refused(given: dict[str, object], message: str, fake_data: Path) -> None:
    arguments: dict[str, object] = {"data_dir": str(fake_data), **given}
    with pytest.raises(ValueError, match=message):
        omniglot(**arguments)  # type: ignore[arg-type]


def test_a_damaged_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "omniglot.npz").write_bytes(b"no archive")
    with pytest.raises(ValueError, match=r"omniglot\.npz: cannot be read"):
        omniglot(str(tmp_path))
    np.savez(tmp_path / "omniglot.npz", images=np.zeros((3, 2, 4, 4)), alphabet=[0] * 3, background=[True] * 3)
    with pytest.raises(ValueError, match=r"omniglot\.npz: images float64 \(3, 2, 4, 4\); it must hold"):
        omniglot(str(tmp_path))
