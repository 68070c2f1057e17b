"""Tables of final numbers: by hand, on runs of three rounds."""

from typing import Any

from experiments.report.event_tables import event_tables
from experiments.report.found_runs import folders, read_runs
from experiments.report.result_tables import result_tables, t_values, table
from experiments.report.setting_tables import environment_table, setting_tables


def column(spec: dict[str, Any], name: str) -> list[Any]:
    """A column of a table."""
    return [row[spec["columns"].index(name)] for row in spec["rows"]]


def test_final_numbers_means_and_differences(make_run) -> None:
    for seed, (one, other) in enumerate([(0.8, 0.9), (0.9, 0.92)]):
        make_run(f"avg{seed}", [0.1, one], seed)
        runs = make_run(f"prox{seed}", [0.1, other], seed, "fedprox", mu=0.1).parent
    found, notes = read_runs(folders([runs])).found, []
    every, means, gaps = result_tables(found, notes)
    assert notes == [] and column(every, "accuracy") == [0.8, 0.9, 0.9, 0.92]
    assert column(every, "run") == ["avg0", "avg1", "prox0", "prox1"] and set(column(every, "state")) == {"completed"}
    assert column(every, "rounds") == [1] * 4 and column(every, "mb_down") == [1.0] * 4
    # .8, .9: std = .1 / sqrt 2, half = t(.975, 1) std / sqrt 2 = 12.706 * .05
    assert column(means, "accuracy")[0]["t"] == "0.85 ± 0.64" and column(means, "seeds") == [2, 2]
    assert column(gaps, "label") == ["fedprox, mu=0.1"] and abs(column(gaps, "difference")[0] - 0.06) < 1e-12
    assert column(gaps, "more") == ["2 of 2"]
    assert t_values()[:3] == [0.0, 0.0, 12.706205] and t_values()[10] == 2.262157  # a table of Student's t


def test_a_table_has_no_nan_and_no_empty_columns() -> None:
    spec = table("t", ["a", "b", "c"], [["x", float("nan"), 1], ["y", None, float("inf")]])
    assert spec["columns"] == ["a", "c"] and spec["rows"] == [["x", 1], ["y", None]]


def test_settings_that_differ_are_told_from_those_that_do_not(make_run) -> None:
    make_run("a", strategy="fedprox", mu=0.1)
    runs = make_run("b", strategy="fedprox", mu=0.2).parent
    differ, same = setting_tables(read_runs(folders([runs])).found)
    assert differ["columns"] == ["run", "strategy.mu"] and differ["rows"] == [["a", 0.1], ["b", 0.2]]
    assert same["rows"] == [["seed", "0"], ["strategy.name", "fedprox"]]


def test_events_are_counted_and_listed_with_their_facts(make_run) -> None:
    failures = [{"round": 2, "client": client, "reason": "ValueError: <b>no</b>"} for client in range(200)]
    run = make_run("a", events=failures)
    counts, listed = event_tables(read_runs(folders([run])).found)
    assert column(counts, "client_failed") == [200] and len(listed["rows"]) == 100
    assert "100 events" in listed["note"]
    assert column(listed, "what")[-1] == "ValueError: <b>no</b>; client = 199" and column(listed, "round")[0] == 2


def test_runs_of_one_environment_share_a_row(make_run) -> None:
    make_run("a")
    spec = environment_table(read_runs(folders([make_run("b").parent])).found)
    assert spec["rows"] == [["a, b", "abc1234", "a processor", "2", "3.11.7", "2.9", "schema 2"]]
