"""``load_all``: one frame of many runs, with the settings that differ."""

from pathlib import Path

import pytest

from fl_sim import RoundLog, load_all


def wrote(folder: Path, mu: float | None, clients: int, rounds: int, ended: bool = True) -> Path:
    """The folder of a run with these settings."""
    table = "" if mu is None else f"mu = {mu}\n"
    config = f'out = "{folder.name}"\nclients = {clients}\nrounds = 2\n[strategy]\nname = "s"\n{table}'
    with RoundLog.create(folder, "run", config) as log:
        for number in range(rounds):
            log.round({"round": number, "loss": number / 2, "status": "mine"})
        if ended:
            log.summary({"status": "completed"})
    return log.path


def test_a_frame_of_many_runs_has_the_settings_that_differ(tmp_path: Path) -> None:
    first = wrote(tmp_path / "a", 0.1, 4, 2)
    wrote(tmp_path / "a" / "deeper", None, 4, 1, ended=False)
    wrote(tmp_path / "b", 0.1, 8, 1)
    frame = load_all(tmp_path)
    assert list(frame)[:4] == ["run", "status", "config.clients", "strategy.mu"]
    assert "rounds" not in frame and "out" not in frame and "strategy.name" not in frame  # all runs have them
    assert frame["run"].nunique() == 3
    own = frame[frame["run"] == str(first.relative_to(tmp_path))]
    assert own["loss"].tolist() == [0, 0.5] and set(own["own_status"]) == {"mine"}
    assert frame["strategy.mu"].isna().sum() == 1 and sorted(set(frame["config.clients"])) == [4, 8]
    assert set(frame["status"]) == {"completed", "running"}


def test_a_run_that_cannot_be_read_is_left_out_by_name_and_no_run_is_an_error(tmp_path: Path) -> None:
    wrote(tmp_path, 0.1, 4, 1)
    damaged = wrote(tmp_path, 0.2, 4, 1)
    (damaged / "rounds.jsonl").write_text("{}\n")
    with pytest.warns(UserWarning, match=f"{damaged.name}.*rounds.jsonl.*it is left out"):
        assert len(load_all(tmp_path)) == 1
    with pytest.raises(ValueError, match="folder = .*there is no such folder"):
        load_all(tmp_path / "nowhere")
