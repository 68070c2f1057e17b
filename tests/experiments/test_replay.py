"""``python -m experiments.replay``: one client's past round is trained again and compared with the log."""

import io
import json
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from experiments import replay
from experiments.config.recipe_files import make
from experiments.run import run
from experiments.runs.execute import execute
from experiments.runs.setup import build
from fl_sim import Callback, Run, from_arrays, load, tree
from fl_sim.engines.results import BlockResult

SETTINGS: dict[str, Any] = {
    "task": "digits",
    "partition": {"name": "dirichlet", "alpha": 0.3, "min_samples": 3},
    "clients": 12,
    "cohort": 5,
    "rounds": 4,
    "evaluate_every": 4,
    "local": {"epochs": 2, "batch_size": 16, "lr_schedule": "cosine", "momentum": 0.9},
}
FRAGILE = '''
from dataclasses import dataclass
from strategies.base.strategy import Strategy

@dataclass
class Fragile(Strategy):
    """Its clients fail from the third round on."""
    def local_update(self, model, state, batches, loss, local_):
        if local_.lr < 0.05:
            raise ArithmeticError("too slow for me")
        return super().local_update(model, state, batches, loss, local_)
'''


class Replies(Callback):
    """Digests of the replies of clients that answered one by one."""

    def __init__(self) -> None:
        self.digests: dict[tuple[int, int], str] = {}

    def on_block(self, run: Run, result: BlockResult) -> None:
        self.digests |= {(run.round, a.client): tree.digest(a.reply) for a in result.clients if a.reply}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("runs")


@pytest.fixture(scope="module")
def looped(folder: Path) -> Path:
    """A run of FedProx, which keeps the partial work of its stragglers."""
    finished = run(**SETTINGS, out=str(folder), engine="loop", strategy="fedprox", **{"system.stragglers": 0.5})
    return Path(finished.summary["run_dir"])


@pytest.fixture(scope="module")
def batched(folder: Path) -> Path:
    """A run of FedAvg, which drops its stragglers."""
    finished = run(**SETTINGS, out=str(folder), engine="vmap", strategy="fedavg", **{"system.stragglers": 0.4})
    return Path(finished.summary["run_dir"])


@pytest.fixture(scope="module")
def failed(folder: Path) -> Iterator[Path]:
    """A run whose clients raise in round 3."""
    (folder / "fragile_rule.py").write_text(FRAGILE)
    sys.path.insert(0, str(folder))
    settings = {
        **SETTINGS,
        "system": {"stragglers": 0.0},
        "out": str(folder),
        "strategy": "fragile_rule:Fragile",
        "engine": "loop",
    }
    summary, error = execute(build(make(**settings)), quiet=True)
    assert error is not None
    yield Path(summary["run_dir"])
    sys.path.remove(str(folder))


def clients_of_round(path: Path, server_round: int, status: str = "completed") -> list[int]:
    rows = load(path).clients
    return (
        rows[(rows["round"] == server_round) & (rows["phase"] == "train") & (rows["status"] == status)]["client"]
        .astype(int)
        .tolist()
    )


def call(capsys: pytest.CaptureFixture[str], *words: Any) -> tuple[int, str, str]:
    code = replay.main([str(word) for word in words])
    printed = capsys.readouterr()
    return code, printed.out, printed.err


def contents(path: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in path.rglob("*") if file.is_file()}


def test_every_client_of_a_round_on_the_loop_comes_back_bit_for_bit(
    looped: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before, log = contents(looped), load(looped)
    steps = []
    for client in clients_of_round(looped, 3):
        code, out, _ = call(capsys, looped, "--round", 3, "--client", client, "--json")
        done = json.loads(out)
        row = log.clients[(log.clients["round"] == 3) & (log.clients["client"] == client)].iloc[0]
        assert (
            code == 0
            and done["agreement"] == "bit for bit"
            and done["drift"] == ""
            and done["recomputed"] == done["compared"] == 2
        )
        assert {k: done["numbers"][k] for k in ("loss", "update_norm", "steps", "examples")} == {
            k: row[k] for k in ("loss", "update_norm", "steps", "examples")
        }
        whole = 2 * -(-int(row["examples"]) // 16)
        steps.append(done["numbers"]["steps"] < whole)
    assert len(steps) == 5 and sum(steps) == 2  # round(0.5 * 5) = 2 stragglers, with less work
    assert contents(looped) == before and len(list(looped.parent.iterdir())) == len(set(looped.parent.iterdir()))


def test_the_digest_is_that_of_the_reply(folder: Path) -> None:
    """It is compared with the reply itself, which strategies of Flower's get unpooled."""
    watch = Replies()
    settings = {
        **SETTINGS,
        "strategy": "flwr.serverapp.strategy:FedAvg",
        "engine": "loop",
        "rounds": 2,
        "out": str(folder),
    }
    finished = run(**settings, callbacks=[watch])
    for (server_round, client), digest in watch.digests.items():
        done = replay.replay(finished.summary["run_dir"], server_round, client)
        assert done.digest == digest and done.agreement == "bit for bit"
    assert len(watch.digests) == 10


def test_of_a_run_on_vmap_it_agrees_to_rounding(batched: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for client in clients_of_round(batched, 2):
        code, out, err = call(capsys, batched, "--round", 2, "--client", client)
        assert code == 0 and "the run's engine was vmap" in out and "every digest is the log's" in out
        assert "agreement: bit for bit" in out or "agreement: to rounding" in out
        assert "recomputing rounds 1..1 on vmap" in err


def test_clients_that_trained_nothing_are_refused_and_those_that_did_are_named(
    batched: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    did, dropped = clients_of_round(batched, 2), clients_of_round(batched, 2, "dropped")
    assert len(did) == 3 and len(dropped) == 2
    other = next(c for c in range(12) if c not in did + dropped)
    names = f"these trained: {', '.join(map(str, sorted(did)))}"
    for client, why in (
        (dropped[0], "is a straggler, whose partial work is dropped"),
        (other, "was not asked"),
        (99, "was not asked"),
    ):
        code, out, err = call(capsys, batched, "--round", 2, "--client", client)
        assert (code, out) == (2, "") and err == f"error: client = {client}: {why} in round 2; {names}\n"


@pytest.mark.parametrize(
    "words, says",
    [
        (["RUN", "--round", 5, "--client", 0], "has the rounds 1..4"),
        (["RUN", "--round", 0, "--client", 0], "has the rounds 1..4"),
        (["nowhere", "--round", 1, "--client", 0], "'nowhere' is not the folder of a run"),
        (["RUN", "--client", 0], "--round"),
        (["RUN", "--round", "x", "--client", 0], "invalid int value: 'x'"),
    ],
)
def test_bad_input_exits_2_without_a_traceback(
    looped: Path, words: list[Any], says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, err = call(capsys, *(looped if word == "RUN" else word for word in words))
    assert (code, out) == (2, "") and says in err and "Traceback" not in err


def test_a_run_of_an_app_cannot_be_replayed(looped: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.copytree(looped, tmp_path, dirs_exist_ok=True)
    (tmp_path / "config.toml").write_text('app = "some/folder"\nrounds = 4\n')
    code, _, err = call(capsys, tmp_path, "--round", 2, "--client", clients_of_round(looped, 2)[0])
    assert code == 2 and "a run of a Flower app (--app)" in err and "Traceback" not in err


def test_a_fork_is_not_run_again_from_another_model(
    looped: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    forked = Path(shutil.copytree(looped, tmp_path / "forked"))
    rows = (forked / "rounds.jsonl").read_text(encoding="utf-8").splitlines(keepends=True)
    (forked / "rounds.jsonl").write_text("".join(rows[1:]), encoding="utf-8")  # as a fork's: without round 0
    (forked / "checksums.json").unlink()
    code, _, err = call(capsys, forked, "--round", 2, "--client", clients_of_round(looped, 2)[0])
    assert code == 2 and "is a fork that begins at round 1" in err


def test_a_difference_from_the_log_is_reported_with_its_first_round(
    looped: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(looped, tmp_path, dirs_exist_ok=True)
    text = (tmp_path / "config.toml").read_text()
    (tmp_path / "config.toml").write_text(text.replace("momentum = 0.9", "momentum = 0.8"))
    code, out, err = call(capsys, tmp_path, "--round", 3, "--client", clients_of_round(looped, 3)[0])
    assert code == 1 and "round 1: the model has digest" in err and "torch" in err and "round 2:" not in err
    assert "NOT the log's from round 1" in out and "differs by" in out


def test_a_failed_run_is_replayed_from_its_last_good_model(failed: Path, capsys: pytest.CaptureFixture[str]) -> None:
    [client] = clients_of_round(failed, 3, "failed")
    code, out, err = call(capsys, failed, "--round", 3, "--client", client)
    assert code == 0 and err == ""  # nothing had to be recomputed: the model after round 2 was kept
    assert "ArithmeticError: too slow for me" in out and "Traceback" in out and "agreement: fails as it did" in out
    done = replay.replay(failed, 2, clients_of_round(failed, 2)[0])
    assert done.agreement == "bit for bit" and done.recomputed == 1


def test_a_client_that_no_longer_fails_is_a_difference(failed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import fragile_rule  # type: ignore[import-not-found]

    monkeypatch.delattr(fragile_rule.Fragile, "local_update")
    done = replay.replay(failed, 3, clients_of_round(failed, 3, "failed")[0])
    assert not done.agrees and "ArithmeticError: too slow for me; the replay: completed" in done.agreement


def test_rounds_before_that_fail_now_are_a_difference_too(
    failed: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(failed, tmp_path, dirs_exist_ok=True)
    text = (tmp_path / "config.toml").read_text()
    (tmp_path / "config.toml").write_text(text.replace("lr = 0.1\n", "lr = 0.04\n"))
    code, out, err = call(capsys, tmp_path, "--round", 2, "--client", clients_of_round(failed, 2)[0])
    assert (code, out) == (1, "") and "cannot be run again: round 1, client" in err and "ArithmeticError" in err


def test_round_1_starts_from_the_initial_model(looped: Path) -> None:
    done = replay.replay(looped, 1, clients_of_round(looped, 1)[0])
    assert done.agrees and done.recomputed == 0


def test_objects_from_python_need_the_setup_again(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    task = from_arrays(
        torch.arange(120.0).reshape(60, 2) / 120, torch.arange(60) % 3, name="mine", clients=torch.arange(60) % 6
    )
    settings: dict[str, Any] = {
        "task": task,
        "model": nn.Linear(2, 3),
        "partition": "natural",
        "rounds": 2,
        "out": str(folder),
    }
    finished = run(**settings)
    code, _, err = call(capsys, finished.summary["run_dir"], "--round", 2, "--client", 4)
    assert code == 2 and "cannot be rebuilt" in err and "setup=build(make(...))" in err
    done = replay.replay(finished.summary["run_dir"], 2, 4, setup=build(make(**settings)))
    assert done.agrees and done.recomputed == 1


@pytest.mark.parametrize("commands, code", [("p len(model)\nc\n", 0), ("q\n", 0)])
def test_pdb_stops_at_the_start_of_local_update(
    looped: Path, commands: str, code: int, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO(commands))
    found, out, err = call(capsys, looped, "--round", 1, "--client", clients_of_round(looped, 1)[0], "--pdb")
    assert found == code and "local_update()" in out and "(Pdb)" in out and "at the start of local_update" in err
    assert ("(Pdb) 4" in out) == commands.startswith("p")  # a multilayer perceptron has four tensors
    assert "agreement: bit for bit" in out


def test_pdb_opens_again_where_a_client_raises(
    failed: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO("c\np local_.lr < 0.08\nq\n"))
    code, out, err = call(capsys, failed, "--round", 3, "--client", clients_of_round(failed, 3, "failed")[0], "--pdb")
    assert code == 0 and "(Pdb) True" in out and "ArithmeticError: too slow for me" in err and "fails as it did" in out
