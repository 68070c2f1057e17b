"""The timeline of a run by hand, from its logged rows alone, and its picture."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from experiments.timeline.__main__ import main, picture
from experiments.timeline.launches import Timeline, busiest, timeline, window
from fl_sim.logs.reader import load
from fl_sim.logs.writer import RoundLog
from tests.experiments.runs.test_stop import trained
from tests.experiments.runs.virtual_time.test_run_clock import WORLD


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three rounds of which each asks 5 of 8 clients, and uses 3: 2 steps of a second times 1, 2 or 4."""
    more: dict[str, Any] = {"profile": "tests.experiments.timeline.test_launches:doubling", "system.over_select": 1.6}
    more |= {"profile.down": 100.0, "profile.up": 50.0, "partition.held_out": 0.0}
    return trained(tmp_path_factory.mktemp("runs"), **{**WORLD, **more})


def test_launches_begin_with_the_round_and_what_is_not_used_ends_with_it(folder: Path) -> None:
    log = load(folder)
    found, ends = timeline(log), log.rounds["virtual_time"].to_numpy()
    rows = found.launches
    assert not found.asynchronous and (found.steps == ends[1:]).all() and len(rows) == 15
    for number in (1, 2, 3):
        part = rows.iloc[5 * (number - 1) : 5 * number]
        assert (part["begin"] == ends[number - 1]).all() and part["used"].sum() == 3
        assert part["end"].max() == pytest.approx(ends[number])
        used, rest = part[part["used"]], part[~part["used"]]
        assert (used["waits"] == ends[number]).all() and (rest["waits"] == rest["end"]).all()
    whole = rows["full"] - rows["begin"]
    work = whole - rows["down"] - rows["up"]
    assert work.to_numpy() == pytest.approx(2.0 * 2.0 ** (rows["client"] % 3).to_numpy())
    assert (rows["up"] == 2 * rows["down"]).all() and (rows["down"] > 0).all()


def made(asynchronous: bool) -> Timeline:
    """Clients 1, 2 and 3 with 3, 2 and 1 launches of a second, one after another."""
    clients = np.array([1, 1, 1, 2, 2, 3])
    begin = np.array([0.0, 1.0, 2.0, 0.0, 1.0, 0.0])
    frame = pd.DataFrame({"client": clients, "begin": begin, "end": begin + 1})
    return Timeline(frame, np.array([1.0, 2.0, 3.0]), asynchronous)


def test_the_busiest_devices_and_a_part_of_the_time() -> None:
    assert sorted(busiest(made(False).launches, 2)["client"].unique()) == [1, 2]
    assert window(made(False), 0.0, None, 2) == (0.0, 2.0)  # two rounds
    assert window(made(True), 0.0, None, 1) == (0.0, 1.0)  # a launch of each of three devices
    assert window(made(True), 0.5, 2.5, 1) == (0.5, 2.5) and window(made(False), 0.0, 99.0, 2) == (0.0, 3.0)
    with pytest.raises(ValueError, match="from = 5, until = 3: nothing happens then; the run ends at 3"):
        window(made(False), 5.0, None, 2)


@pytest.mark.parametrize("kind, begins", [("png", b"\x89PNG"), ("pdf", b"%PDF"), ("svg", b"<?xml")])
def test_pictures_are_of_the_format_that_the_name_says(folder: Path, kind: str, begins: bytes, tmp_path: Path) -> None:
    said = picture(folder, tmp_path / "there" / f"it.{kind}", devices=4)
    assert (tmp_path / "there" / f"it.{kind}").read_bytes().startswith(begins)
    assert said.startswith("the 4 busiest of 8 devices, virtual seconds 0 to ")


@pytest.mark.parametrize(
    "words, says",
    [
        (["--out", "it.gif"], "out = 'it.gif': must be a file *.png, *.pdf or *.svg"),
        (["--devices", "0"], "devices = 0: draw at least one"),
        (["--from", "3", "--until", "2"], "from = 3, until = 2.0: must be virtual seconds"),
        (["--from", "1e9"], "from = 1e+09, "),
    ],
)
def test_bad_input_exits_2_by_name(
    folder: Path, words: list[str], says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([str(folder), *words]) == 2
    assert says in capsys.readouterr().err


def test_what_is_no_run_and_a_run_without_virtual_time_are_refused(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([str(tmp_path)]) == 2 and "is not the folder of a run" in capsys.readouterr().err
    log = load(folder)
    log.rounds["virtual_time"] = np.nan
    with pytest.raises(ValueError, match="its rounds have no virtual_time"):
        timeline(log)


def doubling() -> Any:
    """A profile: the slowness of client c is 2 to the power of c modulo 3."""
    from fl_sim.population.devices import Drawn

    return lambda clients, device, launch: Drawn(2.0 ** (clients % 3), clients % 3)


doubling.kind, doubling.offered_as = "profile", "doubling"  # type: ignore[attr-defined]


@pytest.mark.parametrize("concurrency, waits", [(2, [3.0, 6.0, 5.0, 7.0]), (1, [2.0, 4.0, 5.0, 7.0])])
def test_workers_of_a_fixed_set_wait_for_their_release(concurrency: int, waits: list[float], tmp_path: Path) -> None:
    """Rows in no order of time: client 1 works from 0 to 2 and from 3 to 5, client 0 from 0 to 4 and from 6 to 7."""
    rows = [
        (1, 0.0, 2.0, "completed"),
        (0, 0.0, 4.0, "dropped"),
        (1, 3.0, 2.0, "completed"),
        (0, 6.0, 1.0, "completed"),
    ]
    with RoundLog.create(tmp_path, "run", f"concurrency = {concurrency}\n") as log:
        log.round({"round": 0, "virtual_time": 0.0})
        for number, (_, begin, took, _) in enumerate(rows, 1):
            log.round({"round": number, "version": number, "virtual_time": begin + took})
        log.clients(
            [
                {"round": i, "client": c, "phase": "train", "status": how, "started": begin, "virtual_seconds": took}
                for i, (c, begin, took, how) in enumerate(reversed(rows), 1)
            ]
        )
    found = timeline(load(log.path))
    assert found.asynchronous and found.launches["end"].tolist() == [7.0, 5.0, 4.0, 2.0]
    assert found.launches["waits"].tolist() == [waits[i] for i in (3, 2, 1, 0)]
