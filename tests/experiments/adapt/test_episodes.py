"""Support and query of an episode, and episodes of classes."""

import numpy as np
import pytest

from experiments.adapt.episodes import Episode, of_classes, samples
from fl_sim import from_arrays


def test_more_shots_take_the_samples_of_fewer_and_query_stays() -> None:
    """Of class 0 with 12 samples 12 - 5 = 7 are query; of class 1 with 4 half; of class 2 its only one is support."""
    episode = Episode("e", np.arange(17), np.repeat([0, 1, 2], [12, 4, 1]), 3)
    parts = {shots: episode.parts(shots, 5, 0) for shots in (1, 3, 5)}
    assert [len(parts[shots][0]) for shots in (1, 3, 5)] == [3, 6, 8]
    assert set(parts[1][0]) < set(parts[3][0]) < set(parts[5][0])
    assert all(np.array_equal(parts[shots][1], parts[1][1]) for shots in (3, 5))
    assert np.bincount(episode.classes[parts[5][1]]).tolist() == [7, 2]
    assert not {*parts[5][0]} & {*parts[5][1]} and {*parts[5][0]} | {*parts[5][1]} == set(range(17))
    assert np.bincount(episode.classes[episode.parts(1, 5, 3)[1]]).tolist() == [3, 2]


def test_episodes_of_classes_number_them_anew() -> None:
    y = np.repeat([0, 1, 2, 3], 3)
    task = from_arrays(np.arange(12.0).reshape(12, 1), y, x_test=[[0.0]], y_test=[0])
    found = of_classes(task, 2, 20, 0)
    kinds = {tuple(y[e.rows][e.classes == c][0] for c in (0, 1)) for e in found}
    assert len(kinds) > 6 and all(len(set(pair)) == 2 for pair in kinds)  # of 4 * 3 ordered pairs
    data = samples(task, found[0], np.array([0, 3]))
    assert data["y"].tolist() == [0, 1] and data["x"].flatten().tolist() == found[0].rows[[0, 3]].tolist()
    with pytest.raises(ValueError, match=r"ways = 5: task 'arrays' has 4 classes; choose 2\.\.4"):
        of_classes(task, 5, 1, 0)
    regression = from_arrays(np.eye(4), np.linspace(0, 1, 4), x_test=np.eye(4), y_test=np.linspace(0, 1, 4))
    with pytest.raises(ValueError, match="has no classes to draw episodes of"):
        of_classes(regression, 2, 1, 0)
