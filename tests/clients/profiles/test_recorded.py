"""Devices from a trace: durations and spells by hand, in a run, and every fault named with its row."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from clients.profiles.recorded import Recorded, recorded
from experiments import replay
from experiments.config.recipe_files import make
from experiments.run import main, run
from experiments.runs.resume import ready
from fl_sim.logs.round_columns import repeatable
from fl_sim.population.devices import SECOND, Devices, Work
from tests.experiments.runs.test_stop import lines, trained

TRACE = "client,speed,down,up\n0,1,100,0\n2,.5,0,0\n1,2,0,50\n3,4,1e3,1e3\n"
TIMES = "client,start,end\n1,5,9\n0,0,10\n1,2,5\n2,0,100\n3,1,4\n"


def made(folder: Path, trace: str = TRACE, times: str = "", per: str = "client", period: float = 0.0) -> Recorded:
    """The profile of a trace of four clients."""
    (folder / "trace.csv").write_text(trace)
    (folder / "times.csv").write_text(times)
    spells = str(folder / "times.csv") if times else ""
    return recorded(4, 4, per, str(folder / "trace.csv"), spells, period)


def work() -> Work:
    """4 steps of each of four clients, 300 bytes down and 100 up."""
    return Work(np.arange(4), *(np.full(4, n) for n in (4, 40, 300, 100)))


def test_durations_of_a_trace_by_hand(tmp_path: Path) -> None:
    """4 steps at speeds 1, 2, .5, 4; 300 bytes at 100 and 1000 a second, 100 bytes at 50 and 1000."""
    took = Devices(made(tmp_path)).durations(work(), 1)
    assert (took.before / SECOND).tolist() == [3.0, 0.0, 0.0, 0.3]
    assert (took.training / SECOND).tolist() == [4.0, 2.0, 8.0, 1.0]
    assert (took.after / SECOND).tolist() == [0.0, 2.0, 0.0, 0.1]
    assert took.speed_class.tolist() == [1, 0, 2, 0]  # of four speeds, two are in the first third


def test_parquet_is_read_as_csv_is(tmp_path: Path) -> None:
    rows: dict[str, list[float]] = {
        "client": [0, 2, 1, 3],
        "speed": [1.0, 0.5, 2.0, 4.0],
        "down": [100, 0, 0, 1000],
        "up": [0, 0, 50, 1000],
    }
    pq.write_table(pa.table(rows), tmp_path / "trace.parquet")
    one, other = made(tmp_path), recorded(4, 4, "client", str(tmp_path / "trace.parquet"))
    for mine, theirs in zip(Devices(one).durations(work(), 1), Devices(other).durations(work(), 1), strict=True):
        assert (mine == theirs).all()
    rows["speed"] = [1.0, 0.5, float("nan"), 4.0]
    pq.write_table(pa.table(rows), tmp_path / "trace.parquet")
    with pytest.raises(ValueError, match="trace.parquet row 2: speed is missing or NaN"):
        recorded(4, 4, "client", str(tmp_path / "trace.parquet"))


def test_each_launch_draws_a_row_where_devices_are_of_launches(tmp_path: Path) -> None:
    draw, clients = made(tmp_path, per="launch"), np.arange(4).repeat(1000)
    devices = Devices(draw, per="launch")
    steps = np.ones(len(clients), np.int64)
    took = devices.durations(Work(np.arange(4000), steps, steps, 0 * steps, 0 * steps), 1).training / SECOND
    values, counts = np.unique(took, return_counts=True)
    assert values.tolist() == [0.25, 0.5, 1.0, 2.0]
    assert counts / 4000 == pytest.approx([0.25] * 4, abs=0.035)  # five standard errors


@pytest.mark.parametrize(
    "trace, says",
    [
        ("client,speed\n0,1\n1,-2\n", r"trace.csv line 3: speed = -2: must be above 0"),
        ("client,speed\n0,1\n1,0\n", r"trace.csv line 3: speed = 0: must be above 0"),
        ("client,speed\n0,nan\n", r"trace.csv line 2: speed is missing or NaN"),
        ("client,speed\n0,1\n\n1,1\n", r"trace.csv line 3: client is missing or NaN"),
        ("client,speed\n0,1\n1,fast\n", r"trace.csv line 3: speed = 'fast': is no number"),
        ("client,speed\n0.5,1\n", r"trace.csv line 2: client = '0.5': is no whole number"),
        ("client,speed\n0,1\n1,1,1\n", r"trace.csv line 3: has 3 values; the header has 2 columns"),
        ("client,speed\n-1,1\n", r"trace.csv line 2: client = -1: clients are numbered from 0"),
        ("client,speed\n1,1\n1,2\n", r"trace.csv line 3: client 1 has a row already \(.*line 2\)"),
        ("client,speed\n0,1\n1,1\n3,1\n", r"trace.csv: client 2 has no row, and 4 clients \(0..3\) may train"),
        ("client,speed,down\n0,1,-3\n", r"trace.csv line 2: down = -3: must be bytes a second"),
        ("client,speed,color\n0,1,2\n", r"trace.csv: column 'color' is unknown; a trace has client, speed, down, up"),
        ("client\n0\n", r"trace.csv: has no column 'speed'; it has client"),
        ("client,speed,speed\n0,1,1\n", r"trace.csv: 2 columns are named 'speed'"),
        ("client,speed\n", r"trace.csv: has no rows"),
        ("", r"trace.csv: is empty; it must have a header"),
    ],
)
def test_a_fault_of_a_trace_is_named_with_its_row(trace: str, says: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=says):
        made(tmp_path, trace)


@pytest.mark.parametrize(
    "times, says",
    [
        ("client,start,end\n0,0,1\n1,2,2\n", r"times.csv line 3: end = 2: must be later than the start"),
        (
            "client,start,end\n0,3,5\n1,0,1\n0,2,4\n",
            r"line 2: start = 3: this spell of client 0 .*line 4",
        ),
        ("client,start,end\n0,-1,1\n", r"times.csv line 2: start = -1: must be virtual seconds"),
        ("client,start,end\n0,0,1\n1,0,11\n", r"times.csv line 3: end = 11: is beyond profile.period = 10"),
        ("client,start,end\n0,0,1\n1,0,1\n2,0,1\n", r"times.csv: client 3 has no row"),
        ("client,start,stop\n0,0,1\n", r"times.csv: column 'stop' is unknown"),
    ],
)
def test_a_fault_of_spells_is_named_with_its_row(times: str, says: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=says):
        made(tmp_path, TRACE, times, period=10.0)


def settings(folder: Path, **more: Any) -> dict[str, Any]:
    """A run of four clients on the trace; rounds of two of them."""
    made(folder, TRACE, TIMES)
    world = {"task": "tests.experiments.config.tiny_world:tiny", "model": "lr", "partition": "iid", "quiet": True}
    world |= {"clients": 4, "cohort": 2, "rounds": 2, "engine": "loop", "checkpoint_every": 1, "profile": "recorded"}
    world |= {"profile.file": str(folder / "trace.csv"), "profile.spells": str(folder / "times.csv")}
    return {**world, "partition.held_out": 0.0, **more}


def test_a_run_on_a_trace_goes_on_and_is_replayed_unless_a_file_has_changed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    whole = lines(trained(tmp_path, **settings(tmp_path)))
    cut = trained(tmp_path, **settings(tmp_path, rounds=1))
    assert main(["--resume", str(cut), "--rounds", "2", "--quiet"]) == 0
    assert [repeatable(row) for row in lines(cut)] == [repeatable(row) for row in whole]
    client = next(c for c in range(4) if any(f'"round":2,"client":{c},' in x for x in rows(cut)))
    assert replay.replay(cut, 2, client).numbers["steps"] > 0
    (tmp_path / "times.csv").write_text(TIMES.replace("0,0,10", "0,0,11"))
    capsys.readouterr()
    assert main(["--resume", str(cut), "--rounds", "3", "--quiet"]) == 2
    assert f"{tmp_path / 'times.csv'} has changed since the run began" in capsys.readouterr().err
    with pytest.raises(ValueError, match="times.csv has changed since the run began"):
        replay.replay(cut, 2, client)


def rows(folder: Path) -> list[str]:
    """The lines of clients.jsonl."""
    return (folder / "clients.jsonl").read_text().splitlines()


@pytest.mark.parametrize(
    "more, says",
    [
        ({"profile.file": ""}, r"profile.file = '': no such file; give a CSV or Parquet file with the columns client"),
        ({"profile.spells": "none.csv"}, r"profile.spells = 'none.csv': no such file"),
        ({"profile.spells": "", "profile.period": 3.0}, r"profile.period = 3: repeats spells, and profile.spells"),
        ({"profile.down": 10.0}, r"profile.down = 10: does nothing here: the trace"),
        ({"profile.on": 1.0, "profile.off": 1.0}, r"profile.on = 1: does nothing here: the trace"),
        ({"profile.seed": 1}, r"profile.seed = 1: does nothing here: devices are recorded"),
        ({"clients": 5}, r"trace.csv: client 4 has no row, and 5 clients \(0..4\) may train"),
        ({"system.deadline": 0.1}, r"system.deadline = 0.1: no device meets it; the fastest of 4 takes "),
    ],
)
def test_what_cannot_be_is_refused_before_the_run(more: dict[str, Any], says: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=says):
        run(**settings(tmp_path, **more), out=tmp_path / "none")
    assert not (tmp_path / "none").exists()


@pytest.mark.parametrize("at_once", [1, 10_000])
def test_a_deadline_is_refused_with_the_fastest_of_all_clients(
    at_once: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A step at speeds 1, 2, .5 and 4: client 3 takes .25 s, which the deadline of .3 lets it."""
    monkeypatch.setattr("experiments.runs.virtual_time.deadline.AT_ONCE", at_once)
    quick = settings(tmp_path, **{"system.deadline": 0.2, "profile.spells": ""})
    del quick["quiet"]
    (tmp_path / "trace.csv").write_text("client,speed\n0,1\n1,2\n2,.5\n3,4\n")
    with pytest.raises(ValueError, match="no device meets it; the fastest of 4 takes 0.25 virtual seconds"):
        ready(make(**quick))
    ready(make(**{**quick, "system.deadline": 0.3}))


def test_a_trace_that_ends_ends_the_run_with_a_cure(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match=r"after .* virtual seconds no device comes, and 1 are there, of 2"):
        run(**settings(tmp_path, rounds=9), out=tmp_path)


def test_a_client_that_never_trains_needs_no_row(tmp_path: Path) -> None:
    (tmp_path / "trace.csv").write_text("client,speed\n0,1\n1,1\n")
    assert recorded(3, 2, "client", str(tmp_path / "trace.csv")).speed_class.tolist() == [0, 0]
