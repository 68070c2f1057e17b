"""Whole runs with a codec: resumed, replayed, attacked, batched, asynchronous, in virtual time, and with failures."""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch

from experiments.config.command_line import parse
from experiments.config.recipe_files import make
from experiments.replay import replay
from experiments.run import runs_of
from experiments.runs.execute import execute
from experiments.runs.resume import resume
from experiments.runs.setup import build
from fl_sim import Batch, Callback, Local, Loss, Run, load, tree
from fl_sim.logs.columns import CONFIG
from fl_sim.tree import Tree
from strategies.fedavg import FedAvg
from tests.experiments.config.tiny_world import NAMES

TINY: dict[str, Any] = {"task": f"{NAMES}:tiny", "model": f"{NAMES}:linear", "rounds": 3, "partition": "natural"}
TOPK: dict[str, Any] = {"codec": "topk", "codec.share": 0.25}
BYTES = 4 * 8
"""Of a model: 8 numbers."""
CODED = 2 * 4 + 1
"""Of its code by ``TOPK``: two numbers, and 8 bits."""


class Kept(Callback):
    """The states of the clients at the end of a run; with ``breaks`` the run is interrupted in its last round."""

    def __init__(self, breaks: bool = False) -> None:
        self.breaks, self.states = breaks, dict[int, Tree]()

    def on_round_start(self, run: Run) -> None:
        if self.breaks and run.round == 3:
            raise KeyboardInterrupt

    def on_run_end(self, run: Run) -> None:
        self.states = {c: dict(state) for c, state in run.grid.states.items()}  # type: ignore[attr-defined]


def ran(out: Path, *callbacks: Callback, **settings: Any) -> tuple[Path, list[dict[str, Any]]]:
    """(the folder of a run, the rows of its rounds)."""
    summary, error = execute(build(make(**{**TINY, **settings, "out": str(out)})), True, callbacks)
    assert error is None or isinstance(error, KeyboardInterrupt), error
    folder = Path(summary["run_dir"])
    return folder, [json.loads(line) for line in (folder / "rounds.jsonl").read_text().splitlines()]


@pytest.mark.parametrize(
    "settings",
    [
        {**TOPK, "strategy": "scaffold", "codec.trees": "control"},
        {"codec": "powersgd", "codec.rank": 1, "model": f"{NAMES}:wide"},
        {"codec": "dgc", "codec.share": 0.25, "codec.warmup": 2, "local.steps": 1},
        {**TOPK, "strategy": "fedbuff", "strategy.buffer": 2, "concurrency": 3},
    ],
    ids=["scaffold", "powersgd", "dgc", "fedbuff"],
)
def test_a_run_that_goes_on_ends_as_one_that_was_not_broken_off(settings: dict[str, Any], tmp_path: Path) -> None:
    settings = {**settings, "checkpoint_every": 1}
    _, rows = ran(tmp_path / "whole", **settings)
    broken, _ = ran(tmp_path / "broken", Kept(breaks=True), **settings)
    config = make(str(broken / CONFIG))
    again, error = execute(build(config), True, resumed=resume(broken, config))
    assert error is None and again["status"] == "completed" and again["digest"] == rows[-1]["digest"]
    assert all(row["bytes_up"] < row["bytes_up_raw"] for row in rows[1:])


@pytest.mark.parametrize("codec", [TOPK, {"codec": "int8"}], ids=["topk", "int8"])
@pytest.mark.parametrize("strategy", ["fedavg", "scaffold"])
def test_a_replayed_client_sends_what_it_sent(strategy: str, codec: dict[str, Any], tmp_path: Path) -> None:
    """With the error that it kept: ``codec_error`` and the norm of the decoded update are those of the log."""
    folder, _ = ran(tmp_path, **codec, strategy=strategy, engine="loop")
    done = replay(folder, 3, 1)
    assert done.agreement == "bit for bit" and done.recomputed == 2
    assert ("codec_error" in done.logged) == (codec is TOPK) and done.numbers["update_norm"] > 0


def test_a_malicious_update_is_coded_too_and_replayed(tmp_path: Path) -> None:
    folder, rows = ran(tmp_path, **TOPK, attack="sign-flip", engine="loop", **{"attack.share": 0.5})
    assert rows[1]["bytes_up"] == 4 * CODED and rows[1]["bytes_up_raw"] == 4 * BYTES
    clients = load(folder).clients
    malicious = int(clients[clients["attacked"].fillna(False).astype(bool)]["client"].iloc[0])
    assert replay(folder, 2, malicious).agreement == "bit for bit"


def test_runs_in_one_batch_are_those_that_run_alone(tmp_path: Path) -> None:
    words = f"--task {NAMES}:tiny --model {NAMES}:linear --partition natural --rounds 2 --codec topk --codec.share 0.25"
    words += f" --dtype float64 --engine vmap --out {tmp_path} --quiet"
    batch = [summary for summary, _ in runs_of(parse([*words.split(), "--vmap_over", "seed=0,1"]))]
    alone = [summary for summary, _ in runs_of(parse([*words.split(), "--seed", "0,1"]))]
    for one, other in zip(batch, alone, strict=True):
        a, b = load(one["run_dir"]), load(other["run_dir"])
        assert a.rounds["bytes_up"].tolist()[1:] == b.rounds["bytes_up"].tolist()[1:] == [4 * (2 * 8 + 1)] * 2
        for k, x in a.model().items():
            torch.testing.assert_close(x, b.model()[k], rtol=0, atol=1e-12)


def test_an_upload_takes_the_time_of_its_code(tmp_path: Path) -> None:
    """A byte a second: 32 bytes down, and 32 or 9 up."""
    profile = {"profile": "equal", "profile.up": 1.0, "profile.down": 1.0}
    times = {}
    for name, codec in (("whole", {}), ("coded", TOPK)):
        _, rows = ran(tmp_path / name, rounds=1, **profile, **codec)
        times[name] = rows[1]["virtual_time"]
    assert times["whole"] - times["coded"] == pytest.approx(BYTES - CODED)


class Remembers(FedAvg):
    """No paper: counts a client's visits in its state, in which a rule sees nothing of the codec's."""

    def local_update(
        self, model: Tree, state: Tree, batches: Mapping[str, Iterable[Batch]], loss: Loss, local: Local
    ) -> Any:
        assert not any("codec" in k or "error" in k for k in state), sorted(state)
        new, _, metrics = super().local_update(model, state, batches, loss, local)
        visits = state.get("visits", torch.zeros(())) + 1
        return new, {"visits": visits}, metrics


class Fails(Remembers):
    """No paper: as ``Remembers``, but that a client whose first bias falls in the third round fails there."""

    def local_update(
        self, model: Tree, state: Tree, batches: Mapping[str, Iterable[Batch]], loss: Loss, local: Local
    ) -> Any:
        done = super().local_update(model, state, batches, loss, local)
        if float(done[1]["visits"]) == 3 and done[0]["bias"][0] < model["bias"][0]:
            done[0]["weight"].fill_(torch.nan)
        return done


def test_a_rule_with_a_state_keeps_it_beside_what_the_codec_keeps(tmp_path: Path) -> None:
    kept = Kept()
    ran(tmp_path, kept, strategy=Remembers(), **TOPK)
    for state in kept.states.values():
        assert sorted(state) == ["codec::|error::bias", "codec::|error::weight", "visits"]
        assert float(state["visits"]) == 3


def test_what_a_failed_client_would_keep_is_not_kept(tmp_path: Path) -> None:
    """After the third round, in which some fail, these have what they had after the second, and the others more."""
    after_two, after_three = Kept(), Kept()
    ran(tmp_path / "two", after_two, strategy=Remembers(), rounds=2, **TOPK)
    folder, _ = ran(tmp_path / "three", after_three, strategy=Fails(), engine="loop", failures="tolerate:1", **TOPK)
    failed = set(load(folder).clients.query("status == 'failed'")["client"])
    assert 0 < len(failed) < len(after_two.states) == 4
    for client, state in after_two.states.items():
        assert (tree.digest(after_three.states[client]) == tree.digest(state)) is (client in failed)


@pytest.mark.parametrize("strategy", ["scaffold", "ditto"])
def test_the_states_of_strategies_stay_whole(strategy: str, tmp_path: Path) -> None:
    coded, plain = Kept(), Kept()
    ran(tmp_path / "coded", coded, strategy=strategy, **TOPK)
    ran(tmp_path / "plain", plain, strategy=strategy)
    for client, state in plain.states.items():
        own = coded.states[client]
        assert set(own) - set(state) == {"codec::|error::bias", "codec::|error::weight"} and set(state) <= set(own)
