"""Every setting of a deployment acts or is refused by name: runs on devices in this process."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from clients.app import app
from clients.device import answer
from experiments.config.recipe_files import make
from experiments.deploy.server_app import ServeOptions, deployable, serve
from tests.conformance.in_process import InProcessGrid
from tests.experiments.config.setting_walks import REFUSED, or_refused, settings, wrote
from tests.experiments.config.test_schema_every_setting import HOW, SETTINGS

NOT_ON_DEVICES = {"engine": "vmap", "chunk": 2, "client_timeout": 100.0, "checkpoint_every": 21, "evaluate_train": True}
NOT_ON_DEVICES |= {"log_drift": True, "codec.down": "topk,share=0.4"}
NOT_ON_DEVICES |= {"partition.unseen_held_out": 0.8, "attack.name": "sign-flip", "attack.share": 0.25}
NOT_ON_DEVICES |= {
    "silo.wire": "sockets",
    "silo.reduce": "library",
    "silo.shares": "1,3",
    "silo.balance": True,
    "silo.timeout": 9.0,
}
NOT_ON_DEVICES |= {"concurrency": 2, "evaluate_virtual": 0.5}
NOT_ON_DEVICES |= {
    key: entry[0]
    for key, entry in SETTINGS.items()
    if key.startswith("profile.") or key in ("system.deadline", "system.over_select", "stop.virtual_time")
}
"""Values of settings that devices refuse."""
ONLY_TOLD = {"threads"}
"""Settings that change no number here: the devices are told them."""


class Heard(InProcessGrid):
    """Devices in this process that remember the experiment that they were told."""

    experiment: object = None

    def _call(self, message: Any, node: int) -> Any:
        told = dict(message.content.config_records["experiment"])
        self.experiment = {k: v for k, v in told.items() if k not in ("run", "state-round")}
        return super()._call(message, node)


@pytest.fixture(autouse=True)
def unprobed(monkeypatch: pytest.MonkeyPatch) -> None:
    """The server tries the network; that each device does too takes most of the time of these tests."""
    monkeypatch.setattr(answer, "probe", lambda *_: None)


def served(given: dict[str, Any]) -> tuple[object, object]:
    """(what the server wrote, the experiment as the devices were told). Raises ConfigError."""
    clients = given.get("clients", 4)
    grid = Heard.of(app, clients, **{"state-dir": given["out"]})
    [(summary, _)] = serve([deployable(make(**given))], grid, ServeOptions(node_timeout_s=5.0))
    return wrote(Path(summary["run_dir"])), grid.experiment


def of_devices(key: str, changed: bool, out: Path) -> dict[str, Any]:
    """The settings of a deployment, with or without the change."""
    given = settings(key, SETTINGS[key], changed, out)
    refused = {key: NOT_ON_DEVICES[key]} if changed and key in NOT_ON_DEVICES else {}
    return {**given, "engine": "auto", **refused}


@pytest.fixture(scope="module")
def unchanged(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], tuple[object, object]]:
    """``served`` without the change of a setting; one run for equal settings."""
    out, found = tmp_path_factory.mktemp("unchanged"), dict[str, tuple[object, object]]()

    def look(key: str) -> tuple[object, object]:
        given = of_devices(key, False, out)
        if repr(given) not in found:
            found[repr(given)] = served(given)
        return found[repr(given)]

    return look


@pytest.mark.parametrize("key", SETTINGS)
def test_a_setting_of_a_deployment_acts_or_is_refused(
    key: str, unchanged: Callable[[str], tuple[object, object]], tmp_path: Path
) -> None:
    found = or_refused(key, lambda: served(of_devices(key, True, tmp_path)))
    if HOW.get(key) == REFUSED or key in NOT_ON_DEVICES:
        assert found == REFUSED
        return
    assert isinstance(found, tuple)
    wrote_before, told_before = unchanged(key)
    if key in ONLY_TOLD:
        assert found[0] == wrote_before and found[1] != told_before
    else:
        assert found[0] != wrote_before
