"""Every setting of a fork acts or is refused by name, with and without states of clients and of the server."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from experiments.config.recipe_files import make
from experiments.runs.resume import ready
from tests.experiments.config.setting_walks import REFUSED, WORLD, folder_of, or_refused, seen, settings, wrote
from tests.experiments.config.test_schema_every_setting import HOW, SETTINGS

KEEPS = f"{WORLD}:Keeps"
STAYS = {
    *("task.name", "partition.name", "partition.held_out", "partition.seed", "clients", "validation", "dtype"),
    *("partition.unseen_held_out", "partition.feature_shift", "validation_clients"),
}
"""Settings that the states of clients do not allow to change."""
SHAPES = {"model.name"}
"""Settings that the model of the checkpoint does not allow to change."""
NO_FORKS = {"concurrency", "evaluate_virtual"}
"""Settings of asynchronous runs, which do not begin at a checkpoint."""
Look = Callable[[str, str], Any]


def forked(key: str, strategy: str, changed: bool, out: Path, parent: Path) -> dict[str, Any]:
    """The settings of a fork after round 1 of ``parent``, with or without the change."""
    given = settings(key, SETTINGS[key], changed, out)
    own = {"strategy": strategy, **given} if "strategy" in given else {**given, "strategy": strategy}
    return {**own, "rounds": given["rounds"] + 1, "fork": f"{parent}@1"}


@pytest.fixture(scope="module")
def parents(tmp_path_factory: pytest.TempPathFactory) -> Look:
    """The run with the settings of SETTINGS that is forked; one run for equal settings."""
    out, found = tmp_path_factory.mktemp("parents"), dict[str, Path]()

    def look(key: str, strategy: str) -> Path:
        given = {"strategy": strategy, **settings(key, SETTINGS[key], False, out)}
        given |= {"checkpoint_every": 1, "checkpoint_keep": 0}
        if repr(given) not in found:
            found[repr(given)] = folder_of(given)
        return found[repr(given)]

    return look


@pytest.fixture(scope="module")
def unchanged(parents: Look, tmp_path_factory: pytest.TempPathFactory) -> Look:
    """What a fork without the change wrote."""
    out, found = tmp_path_factory.mktemp("unchanged"), dict[str, object]()

    def look(key: str, strategy: str) -> object:
        given = forked(key, strategy, False, out, parents(key, strategy))
        if repr(given) not in found:
            found[repr(given)] = wrote(folder_of(given))
        return found[repr(given)]

    return look


@pytest.mark.parametrize("strategy", ["fedavg", KEEPS], ids=["stateless", "stateful"])
@pytest.mark.parametrize("key", SETTINGS)
def test_a_setting_of_a_fork_acts_or_is_refused(
    key: str, strategy: str, parents: Look, unchanged: Look, tmp_path: Path
) -> None:
    parent, how = parents(key, strategy), HOW.get(key, "")
    before, after = (forked(key, strategy, each, tmp_path, parent) for each in (False, True))
    if how in ("", REFUSED):
        found = or_refused(key, lambda: wrote(folder_of(after)))
        if how or key in SHAPES | NO_FORKS or (strategy == KEEPS and key in STAYS):
            assert found == REFUSED
        else:
            assert found not in (REFUSED, unchanged(key, strategy))
    else:
        assert seen(how, ready(make(**before))) != seen(how, ready(make(**after)))
