"""``python -m experiments.replay`` of a run with ``digest_every``: it says how many rounds it could compare."""

import json
import shutil
from pathlib import Path

import pytest

from experiments import replay
from experiments.run import run
from fl_sim.errors import ConfigError
from tests.experiments.test_replay import SETTINGS, call, clients_of_round


def test_it_says_how_many_rounds_had_a_digest(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Of rounds 1..3 only round 2 has one; a log with another one there differs."""
    finished = run(**{**SETTINGS, "local": {}}, out=str(tmp_path), engine="loop", digest_every=2)
    logged = Path(finished.summary["run_dir"])
    [client, *_], [early, *_] = clients_of_round(logged, 4), clients_of_round(logged, 2)
    code, out, _ = call(capsys, logged, "--round", 4, "--client", client)
    some = "rounds 1..3 recomputed: the log has a digest of 1 of them (digest_every), and each is the same"
    assert code == 0 and some in out
    code, out, _ = call(capsys, logged, "--round", 2, "--client", early)
    assert code == 0 and "rounds 1..1 recomputed: the log has a digest of none of them" in out
    lines = (logged / "rounds.jsonl").read_text().splitlines()
    digest = json.loads(lines[2])["digest"]
    copied = Path(shutil.copytree(logged, tmp_path / "copied"))
    (copied / "rounds.jsonl").write_text("\n".join(lines).replace(digest, "0" * 64) + "\n")
    (copied / "checksums.json").unlink()
    done = replay.replay(copied, 4, client)
    assert done.compared == 1 and done.drift.startswith("round 2: ") and not done.agrees


def test_a_client_of_an_asynchronous_run_is_refused_and_not_called_different(tmp_path: Path) -> None:
    """It started from a model that no round of ``run_rounds`` has."""
    done = run(task="digits", model="lr", clients=4, strategy="fedasync", concurrency=2, rounds=2, out=str(tmp_path))
    row = done.log.clients.iloc[-1]
    with pytest.raises(ConfigError, match="'fedasync': a client of an asynchronous run is not computed again"):
        replay.replay(done.log.path, int(row["round"]), int(row["client"]))
