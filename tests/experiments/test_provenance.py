"""Where results come from: each shipped page says it, and what an older run's log does not hold is unknown."""

import json
from pathlib import Path

import pytest

from experiments import provenance
from experiments.provenance import of_run, origin
from experiments.run import main, run
from fl_sim import load

PAGES = sorted((Path(__file__).parents[2] / "experiments" / "results").glob("*.md"))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_a_page_of_results_names_commit_machine_seeds_and_what_was_tuned(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    assert all(said in text for said in ("ommit ", " cores", "seed", "uned"))


def test_a_run_logs_its_commit_and_machine_and_an_older_one_has_none(tmp_path: Path) -> None:
    folders = [Path(run(rounds=1, clients=3, seed=seed, out=tmp_path).summary["run_dir"]) for seed in (4, 7)]
    [start] = load(folders[0]).events.query("event == 'start'").to_dict("records")
    assert {k: start[k] for k in ("commit", "cpu", "cores")} == of_run()
    lines = [json.loads(line) for line in (folders[1] / "events.jsonl").read_text().splitlines()]
    (folders[1] / "checksums.json").unlink()
    old = [{k: v for k, v in line.items() if k not in ("commit", "cpu", "cores")} for line in lines]
    (folders[1] / "events.jsonl").write_text("".join(f"{json.dumps(line)}\n" for line in old))
    said = origin([load(folder) for folder in folders], "lr on the validation share ")
    commits = ", ".join(sorted({str(start["commit"] or "unknown"), "unknown"}))
    assert (
        said.startswith(f"2 runs at commit {commits}; machine: ") and f"{start['cpu']}, {start['cores']} cores" in said
    )
    assert "; seeds 4, 7; " in said and "torch " in said and said.endswith("Tuned: lr on the validation share.")


def test_a_run_that_goes_on_logs_where_it_does(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A page of results then names both commits and both machines."""
    folder = run(rounds=1, clients=3, out=tmp_path).summary["run_dir"]
    here = {"commit": "abc1234", "cpu": "another one", "cores": 5}
    monkeypatch.setattr("experiments.runs.execute.of_run", lambda: here)
    assert main(["--resume", folder, "--rounds", "2", "--quiet"]) == 0
    log = load(folder)
    [start, resumed] = log.events[log.events["event"].isin(["start", "resumed"])].to_dict("records")
    assert {k: start[k] for k in here} == of_run() and {k: resumed[k] for k in here} == here
    assert resumed["round"] == 1 and resumed["versions"] == log.summary["versions"] and resumed["machine"]
    said = origin([log], "nothing")
    commits = ", ".join(sorted({str(start["commit"] or "unknown"), "abc1234"}))
    assert f"at commit {commits}; " in said and "another one, 5 cores" in said and f"{start['cpu']}, " in said


def test_outside_of_a_clone_a_run_has_no_commit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(provenance, "ROOT", tmp_path)
    assert of_run.__wrapped__()["commit"] is None
