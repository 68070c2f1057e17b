"""Which runs a page shows: folders at any depth, broken runs, runs that go on, old runs."""

import pytest

from experiments.report.content import content
from experiments.report.found_runs import folders, read_runs, state


def test_runs_are_found_at_any_depth_and_once(make_run) -> None:
    run = make_run("a")
    deeper = run.parent / "sweep" / "trial-1" / "seed-0"
    deeper.parent.mkdir(parents=True)
    make_run("b").rename(deeper)
    assert folders([run.parent]) == [run, deeper] == folders([run, run.parent, deeper])


def test_paths_that_hold_no_run_are_refused(make_run, tmp_path) -> None:
    (tmp_path / "empty").mkdir()
    for path, why in [("none", "no such folder"), ("empty", "holds no run"), ("runs/a/config.toml", "is a file")]:
        make_run("a") if not (tmp_path / "runs").exists() else None
        with pytest.raises(ValueError, match=f"{path}': .*{why}.*name a run's folder"):
            folders([tmp_path / path])


def test_runs_of_one_name_are_told_apart_and_labelled(make_run) -> None:
    one = make_run("a", seed=1)
    other = one.parent / "other" / "a"
    other.parent.mkdir()
    make_run("b", strategy="fedprox", mu=0.5).rename(other)
    found = read_runs(folders([one.parent])).found
    assert [(run.name, run.label) for run in found] == [("runs/a", "fedavg"), ("other/a", "fedprox, mu=0.5")]


def test_a_broken_run_is_a_note_and_hides_no_other(make_run) -> None:
    for name in ("config", "lines", "summary"):
        make_run(name)
    runs = make_run("good").parent
    (runs / "config" / "config.toml").write_text("= broken")
    (runs / "lines" / "rounds.jsonl").write_text('{"round": 0}\n{"rou\n{"round": 2}\n')
    (runs / "summary" / "summary.json").write_text("{")
    read = read_runs(folders([runs]))
    assert [run.name for run in read.found] == ["good"]
    for name, why in [("config", "damaged"), ("lines", "line 2 is damaged"), ("summary", "damaged")]:
        assert any(note.startswith(f"{name}: cannot be read") and why in note for note in read.notes)
    assert [run["name"] for run in content(read)["runs"]] == ["good"]


def test_a_run_that_goes_on_an_empty_one_and_an_old_one_are_shown(make_run) -> None:
    going, empty, old = make_run("going", summary=None), make_run("empty", [], summary=None), make_run("old")
    with (going / "rounds.jsonl").open("a") as lines:
        lines.write('{"round": 3, "acc')  # a line that is being written
    (old / "partition.json").unlink()
    (old / "checksums.json").unlink()
    (old / "rounds.jsonl").write_text('{"round": 0, "accuracy": 0.1}\n{"round": 1, "accuracy": 0.2}\n')
    (old / "events.jsonl").write_text('{"time": 1.0, "event": "start"}\n')
    read = read_runs(folders([going, empty, old]))
    assert read.notes == [] and state(read.found[0].log) == "running"
    page = content(read)
    assert [run["rounds"] for run in page["runs"]] == [3, 0, 2] and page["notes"] == []
    assert page["runs"][1]["metrics"] == {} and set(page["runs"][2]["axes"]) == {"round"}
    environment = page["tables"]["environment"][0]
    assert environment["rows"][-1][environment["columns"].index("columns")] == "schema 1"


def test_a_file_that_was_changed_after_the_end_is_a_note(make_run) -> None:
    run = make_run("a")
    with (run / "rounds.jsonl").open("a") as lines:
        lines.write('{"round": 3}\n')
    [note] = read_runs([run]).notes
    assert "changed after the run had ended" in note and read_runs([run], checked=False).notes == []
