"""The page: what runs say stays data, nothing comes from a network, and it is below 6 MB."""

import base64
import hashlib
import importlib.util
import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from experiments.report.__main__ import main
from experiments.report.content import as_json, content
from experiments.report.curve_points import unpacked
from experiments.report.found_runs import Runs, folders, read_runs
from experiments.report.html_page import html_page

EVIL = "</script><script>alert(1)</script>"


def data_of(page: str) -> dict:
    """The data of a page."""
    text = page.partition('<script type="application/json" id="data">')[2].partition("</script>")[0]
    return json.loads(text)


def test_what_runs_say_cannot_leave_the_data(make_run, tmp_path: Path) -> None:
    named = make_run("a", note=json.dumps(EVIL), events=[{"round": 1, "reason": EVIL}])
    run = named.rename(named.with_name("<script>alert(2)<"))
    out = tmp_path / "deeper" / "r.html"
    assert main([str(run), "--out", str(out), "--title", EVIL]) == 0
    page = out.read_text()
    plotly = page.index("Plotly")
    before = page[: page.index("<script>", page.index('id="data"'))]
    assert before.count("<script") == 1 and "<script>alert" not in page and plotly > len(before)
    data = data_of(page)
    assert [row[1] for row in data["tables"]["settings"][0]["rows"]][-1] == EVIL  # and arrives whole
    assert data["tables"]["events"][1]["rows"][0][-1] == EVIL and data["runs"][0]["name"] == run.name


def test_the_policy_lets_the_pages_own_scripts_run_and_nothing_be_loaded(make_run) -> None:
    page = html_page("t", content(read_runs(folders([make_run("a")]))))
    scripts = re.findall(r"<script>(.*?)</script>", page, re.S)
    policy = re.search(r'Content-Security-Policy" content="([^"]*)"', page)
    assert len(scripts) == 2 and policy
    for script in scripts:
        assert base64.b64encode(hashlib.sha256(script.encode()).digest()).decode() in policy[1]
    assert "default-src 'none'" in policy[1] and "connect-src 'none'" in policy[1]
    assert not re.search(r"<(script|link|img)[^>]*(src|href)=.http", page)


def test_twenty_runs_of_a_thousand_rounds_are_below_6_mb(make_run) -> None:
    names = ["accuracy", "loss", "train_loss", "val_loss", "update_norm", "drift", "seconds", "rss_mb", "virtual_time"]
    numbers = np.random.default_rng(0).random((1001, len(names))).tolist()
    rows = [{"round": n, **dict(zip(names, row, strict=True)), "bytes_up": 1e6} for n, row in enumerate(numbers)]
    run = make_run("run", [], summary=None, events=[{"reason": "x" * 500}] * 60)
    (run / "rounds.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    [found] = read_runs([run]).found
    runs = Runs([replace(found, name=f"run{n}", label=f"mu={n}") for n in range(20)], [])
    smaller = content(runs, 500_000)
    assert len(as_json(smaller)) <= 500_000 and 20 < smaller["points"] < 1000 and smaller["thinned"]
    fewest = content(runs, 170_000)
    assert len(as_json(fewest)) <= 170_500 and 0 < sum(not run["axes"] for run in fewest["runs"]) < 20
    assert "runs would not fit, and are left out" in fewest["notes"][-1]
    page = content(runs)
    size = len(html_page("20 runs", page).encode())
    assert 5.7e6 < size < 6e6 and page["points"] == 1000
    x, y = unpacked(page["runs"][19]["metrics"]["accuracy"], page["runs"][19]["axes"]["round"])
    expected = {n: row[0] for n, row in enumerate(numbers)}
    assert len(x) == 1001 and np.allclose(y, [expected[int(n)] for n in x])
    assert max(expected.values()) == pytest.approx(y.max()) and min(expected.values()) == pytest.approx(y.min())


@pytest.mark.parametrize(
    "arguments, error",
    [
        (["none"], "'none': there is no such folder; name a run's folder, or a folder of runs"),
        (["RUN", "--out", "r.txt"], "out = 'r.txt': must end with .html"),
        (["RUN", "--out", "FOLDER.html"], "is a folder; name a file"),
        (["BROKEN"], "cannot be read"),
    ],
)
def test_bad_input_is_an_error(arguments, error, make_run, tmp_path, capsys) -> None:
    places = {"RUN": make_run("a"), "BROKEN": make_run("b"), "FOLDER.html": tmp_path / "f.html"}
    (places["BROKEN"] / "config.toml").write_text("= broken")
    places["FOLDER.html"].mkdir()
    assert main([str(places.get(word, word)) for word in arguments]) == 2
    assert error in capsys.readouterr().err


def test_without_plotly_one_is_told_how_to_install_it(make_run, monkeypatch, capsys) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *rest: None if name == "plotly" else find(name, *rest)
    )
    assert main([str(make_run("a"))]) == 2
    assert "plotly is not installed" in (error := capsys.readouterr().err) and "pip install 'fl-sim[report]'" in error
