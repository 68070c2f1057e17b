"""Runs under attack: the same malicious clients for every strategy, resumed and replayed as they were, and refusals."""

import json
from pathlib import Path
from typing import Any

import pytest

from clients.attacks.sign_flip import SignFlip
from experiments.config.recipe_files import make
from experiments.deploy.server_app import deployable
from experiments.replay import replay
from experiments.run import main
from experiments.runs.execute import execute
from experiments.runs.resume import resume
from experiments.runs.setup import build
from fl_sim import Callback, Run, load
from fl_sim.errors import ConfigError
from fl_sim.logs.columns import CONFIG
from tests.experiments.config.tiny_world import NAMES

TINY: dict[str, Any] = {"task": f"{NAMES}:tiny", "model": f"{NAMES}:linear", "rounds": 2, "partition": "natural"}
ATTACK: dict[str, Any] = {"attack": "sign-flip", "attack.share": 0.5}


def attacked(folder: object) -> list[tuple[int, int]]:
    """(round, client) of the rows of malicious clients."""
    clients = load(str(folder)).clients
    rows = clients[clients["attacked"].fillna(False).astype(bool)]
    return [(int(r), int(c)) for r, c in zip(rows["round"], rows["client"], strict=True)]


class Breaks(Callback):
    """Interrupts a run in its second round."""

    def on_round_start(self, run: Run) -> None:
        if run.round == 2:
            raise KeyboardInterrupt


def folder_of(out: Path, **settings: Any) -> Path:
    summary, error = execute(build(make(**{**TINY, **settings, "out": str(out)})), quiet=True)
    assert error is None
    return Path(summary["run_dir"])


def test_every_strategy_has_the_same_malicious_clients(tmp_path: Path) -> None:
    found = [
        sorted(attacked(folder_of(tmp_path / str(number), strategy=strategy, **ATTACK)))
        for number, strategy in enumerate(("fedavg", "scaffold", "perfedavg", "flwr.serverapp.strategy:FedMedian"))
    ]
    assert len(found[0]) == 4 and {c for r, c in found[0] if r == 1} == {c for r, c in found[0] if r == 2}
    assert all(rows == found[0] for rows in found)


@pytest.mark.parametrize("attack", ["noise", "ipm"])
def test_a_run_that_goes_on_ends_as_one_that_was_not_broken_off(attack: str, tmp_path: Path) -> None:
    given = {**TINY, **ATTACK, "attack": attack, "checkpoint_every": 1, "out": str(tmp_path)}
    whole, _ = execute(build(make(**given)), quiet=True)
    broken, _ = execute(build(make(**given)), True, [Breaks()])
    config = make(str(Path(broken["run_dir"]) / CONFIG))
    again, _ = execute(build(config), True, resumed=resume(Path(broken["run_dir"]), config))
    assert again["status"] == "completed" and again["digest"] == whole["digest"]


def test_a_malicious_client_is_replayed_as_it_was(tmp_path: Path) -> None:
    folder = folder_of(tmp_path / "flip", **{**ATTACK, "attack": "label-flip", "engine": "loop"})
    (_, client), *_ = attacked(folder)
    assert replay(folder, 1, client).agreement == "bit for bit"
    folder = folder_of(tmp_path / "ipm", **{**ATTACK, "attack": "ipm", "rounds": 1})
    with pytest.raises(ValueError, match=rf"client = {client}: sent what the attack ipm makes of all honest replies"):
        replay(folder, 1, client)


def test_flipped_labels_do_not_reach_evaluations(tmp_path: Path) -> None:
    """At the learning rate 0 the model stays, so that evaluations say which labels they saw."""
    common = {"local.lr": 0.0, "rounds": 1, "personalize_steps": 1, "personalize_lr": 0.1, "partition.held_out": 0.4}
    logs = [
        load(str(folder_of(tmp_path / name, **common, **own)))
        for name, own in (("honest", {}), ("flipped", {**ATTACK, "attack": "label-flip"}))
    ]
    frames = [log.clients.sort_values(["phase", "client"]) for log in logs]
    personal, train = ([f[f["phase"] == phase]["loss"].to_list() for f in frames] for phase in ("personal", "train"))
    assert personal[0] == pytest.approx(personal[1], rel=1e-6) and len(personal[0]) == 4
    assert train[0] != pytest.approx(train[1], rel=1e-2)


def test_runs_that_train_as_one_batch_are_attacked_too(tmp_path: Path) -> None:
    """Labels are flipped for the malicious clients of each run of the batch, as in a run alone."""
    words = f"--task {NAMES}:tiny --model {NAMES}:linear --partition natural --rounds 1 --quiet"
    words += f" --attack label-flip --attack.share 0.5 --out {tmp_path}"
    assert main([*words.split(), "--vmap_over", "local.lr=0.05,0.1"]) == 0
    together = sorted(load(str(f.parent)).rounds["loss"].iloc[-1] for f in tmp_path.glob("*/summary.json"))
    alone = [
        folder_of(tmp_path / str(lr), rounds=1, **{**ATTACK, "attack": "label-flip", "local.lr": lr})
        for lr in (0.05, 0.1)
    ]
    assert together == pytest.approx(sorted(load(str(f)).rounds["loss"].iloc[-1] for f in alone), rel=1e-5)
    honest = load(str(folder_of(tmp_path / "honest", rounds=1, **{"local.lr": 0.1}))).rounds["loss"].iloc[-1]
    assert honest not in [pytest.approx(loss, rel=1e-3) for loss in together]


REFUSED: dict[str, str] = {
    "--attack sign-flip": "attack.share = 0: attack sign-flip acts on no client",
    "--attack.share 0.2": "attack.share = 0.2: no attack is named",
    "--attack sign-flip --attack.share 0.6": "attack.share = 0.6: must be less than or equal to 0.5",
    "--attack sign-flip --attack.share -0.1": "attack.share = -0.1: must be greater",
    "--attack sing-flip --attack.share 0.2": "attack.name = 'sing-flip': unknown (did you mean 'sign-flip'?)",
    "--attack sign-flip --attack.share 0.2 --attack.eps 3": "attack.eps = '3'",
    "--attack ipm --attack.share 0.2 --attack.eps 0": "attack.eps = 0.0: must be greater than 0",
    "--attack ipm --attack.share 0.2 --cohort 2": "attack.share = 0.2: is none of a round's 2 clients",
    "--attack ipm --attack.share 0.2 --engine flower": "attack.name = 'ipm'",
    "--attack label-flip --attack.share 0.2 --task sinusoid": "attack.name = 'label-flip': needs class labels",
}


@pytest.mark.parametrize("words", REFUSED)
def test_bad_input_is_refused_by_name(words: str, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert main([*words.split(), "--rounds", "1", "--quiet", "--out", str(tmp_path)]) == 2
    assert REFUSED[words] in capsys.readouterr().err and not list(tmp_path.iterdir())


def test_a_deployment_refuses_an_attack() -> None:
    with pytest.raises(ConfigError, match=r"attack\.name = 'sign-flip', attack\.share = 0\.5: malicious clients are"):
        deployable(make(**TINY, **ATTACK))


class Zeros:
    """No attack."""


def test_an_attack_of_a_user_s_own(tmp_path: Path) -> None:
    folder = folder_of(tmp_path, **{"attack": SignFlip(factor=2.0), "attack.share": 0.5, "rounds": 1})
    assert "factor = 2.0" in (folder / CONFIG).read_text() and len(attacked(folder)) == 2
    with pytest.raises(ConfigError, match=r"attack\.name = .*Zeros': makes a Zeros; it must be a fl_sim"):
        build(make(**{**TINY, "attack": Zeros, "attack.share": 0.5}))


def test_a_run_without_an_attack_does_not_mention_one(tmp_path: Path) -> None:
    folder = folder_of(tmp_path, rounds=1)
    assert "attack" not in load(str(folder)).config
    assert all("attacked" not in json.loads(line) for line in (folder / "clients.jsonl").read_text().splitlines())
