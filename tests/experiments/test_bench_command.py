"""``python -m experiments.bench`` as a whole, in tiny sizes; and that nothing of it stays behind."""

import json
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil
import pytest

from experiments.bench.children import process_tree

pytestmark = pytest.mark.slow
COMMAND = [sys.executable, "-m", "experiments.bench", "--quick"]


def test_a_quick_run_ends_in_a_table_and_files(tmp_path: Path) -> None:
    words = [*COMMAND, "--work", "S1-skew,S2,S3", "--systems", "ours-loop,ours-vmap,bare", "--out", "bench", "--json"]
    done = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    results: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    assert results == json.loads((tmp_path / "bench" / "bench.json").read_text())
    assert (tmp_path / "bench" / "bench.md").read_text() in done.stdout
    assert (tmp_path / "bench" / "bench.png").stat().st_size > 5_000
    ran = [(row["work"], row["system"]) for row in results["rows"]]
    assert ran == [("S1-skew", "ours-loop"), ("S2", "ours-vmap"), ("S2", "bare"), ("S3-10-of-100", "ours-loop")]
    for row in results["rows"]:
        assert row["status"] == "ok" and row["same_work"], row
        assert (
            row["seconds"]["min"] > 0
            and row["peak_rss_bytes"] >= row["peak_bytes"] > 1e8
            and row["startup_s"] > row["setup_s"]
        )
        assert row["accuracy"] is None
    assert 0 < results["rows"][0]["matmul_share"] < 1 and results["works"][0]["random_arrays"]
    assert str(tmp_path) not in done.stdout


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize("how, code", [(signal.SIGKILL, -9), (signal.SIGINT, 130)], ids=["killed", "interrupted"])
def test_children_end_with_the_benchmark(how: signal.Signals, code: int, tmp_path: Path) -> None:
    words = [*COMMAND, "--work", "S1", "--systems", "bare", "--rounds", "1000", "--out", str(tmp_path)]
    bench = subprocess.Popen(words, stderr=subprocess.PIPE, text=True)
    assert bench.stderr is not None
    for line in bench.stderr:
        if line.startswith("S1 bare: ") and "ready" not in line:
            break
    children = process_tree.tree(f"{bench.pid}-")
    assert len(children) >= 2  # and the yardstick
    bench.send_signal(how)
    assert bench.wait(timeout=60) == code
    end = time.monotonic() + 30
    while any(psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE for pid in children):
        assert time.monotonic() < end
        time.sleep(0.1)
