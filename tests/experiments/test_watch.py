"""The live page: only for whom has the token, new numbers as they come, also after a run began anew."""

import json
import shutil
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from experiments.watch.__main__ import main
from experiments.watch.live_server import Server, Watched
from fl_sim.logs.writer import RoundLog


def begin(runs: Path, name: str, rounds: int) -> Path:
    """A run that goes on, of ``rounds`` rounds so far."""
    with RoundLog.create(runs.parent / "made", name, 'seed = 0\n[strategy]\nname = "fedavg"\n') as log:
        for number in range(rounds):
            log.round({"round": number, "accuracy": number / 10, "loss": 1.0, "seconds": 1.0})
    runs.mkdir(exist_ok=True)
    return log.path.rename(runs / name)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    """A server of a folder with one run."""
    begin(tmp_path / "runs", "a", 2)
    with Server(Watched([tmp_path / "runs"]), every=0.5) as found:
        thread = threading.Thread(target=found.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield found
        found.shutdown()
        thread.join()


def get(address: str, tag: str = "") -> tuple[int, bytes, str]:
    """Status, body and tag of what an address answers."""
    request = urllib.request.Request(address, headers={"If-None-Match": tag})
    try:
        with urllib.request.urlopen(request, timeout=30) as reply:
            return reply.status, reply.read(), reply.headers["ETag"] or ""
    except urllib.error.HTTPError as error:
        return error.code, error.read(), ""


def test_only_the_whole_address_is_answered(server: Server) -> None:
    assert server.server_address[0] == "127.0.0.1"
    bare = server.address.partition("?")[0]
    for address in (
        bare,
        f"{bare}data",
        f"{bare}?token=",
        f"{bare}data?token={server.token[:-1]}",
        f"{bare}?token=%ff",
    ):
        status, body, _ = get(address)
        assert status == 403 and b"the whole address" in body
    assert get(server.address.replace("/?", "/../etc/passwd?"))[0] == 404
    status, page, _ = get(server.address)
    assert status == 200 and b'id="data">{"live":0.5}<' in page and b"connect-src 'self'" in page


def test_the_data_follow_the_runs(server: Server, tmp_path: Path) -> None:
    runs, address = tmp_path / "runs", server.address.replace("/?", "/data?")

    def rounds(tag: str = "") -> dict[str, int] | None:
        status, body, found = get(address, tag)
        tags.append(found)
        return None if status == 304 else {run["name"]: run["rounds"] for run in json.loads(body)["runs"]}

    tags: list[str] = []
    assert rounds() == {"a": 2} and rounds(tags[-1]) is None
    with (runs / "a" / "rounds.jsonl").open("a") as lines:
        lines.write('{"round": 2, "accuracy": 0.2}\n{"round": 3, "acc')
    assert rounds(tags[0]) == {"a": 3}
    begin(runs, "b", 5)
    assert rounds() == {"a": 3, "b": 5}
    shutil.rmtree(runs / "a")
    begin(runs, "a", 1)  # begun anew
    assert rounds() == {"a": 1, "b": 5}
    (runs / "b" / "config.toml").write_text("= broken")
    assert rounds() == {"a": 1}
    shutil.rmtree(runs)
    assert rounds() == {}
    begin(runs, "c", 4)
    assert rounds() == {"c": 4}


def test_nothing_is_written(server: Server, tmp_path: Path) -> None:
    before = {file: file.stat().st_mtime_ns for file in tmp_path.rglob("*")}
    get(server.address.replace("/?", "/data?"))
    assert {file: file.stat().st_mtime_ns for file in tmp_path.rglob("*")} == before


def test_ctrl_c_ends_it_with_0_and_bad_input_with_2(tmp_path, monkeypatch, capsys) -> None:
    def interrupted(self: Server) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Server, "serve_forever", interrupted)
    run = str(begin(tmp_path / "runs", "a", 1))
    assert main([run]) == 0 and "http://127.0.0.1:" in capsys.readouterr().out
    for words, error in [
        (["none"], "no such folder"),
        ([run, "--every", "0"], "every = 0: must be between"),
        ([run, "--port", "70000"], "port = 70000: must be"),
    ]:
        assert main(words) == 2 and error in capsys.readouterr().err
    with Server(Watched([run])) as taken:
        assert main([run, "--port", str(taken.server_address[1])]) == 2
        assert "cannot be used (Address already in use)" in capsys.readouterr().err
