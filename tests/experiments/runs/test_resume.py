"""A killed run goes on to the result that it would have had: 21 kills, and requests that are refused."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from experiments import run
from experiments.check.same_digests import last_of_each
from fl_sim import Callback, RoundLog, Run, load, rng
from fl_sim.logs.round_columns import repeatable
from fl_sim.rounds import checkpoint

HERE = Path(__file__).parent
ROUNDS = 5
SMALL = (
    f"--task digits --model mlp --model.hidden 8 --clients 6 --cohort 4 --rounds {ROUNDS} --partition.held_out 0.2"
    " --personalize_steps 1 --personalize_every 2 --evaluate_every 2 --system.stragglers 0.3 --checkpoint_every 1"
    " --block_size 2 --quiet"
).split()
OURS = [
    "fedavg",
    "fedprox",
    "maxpool",
    "reptile --strategy.anneal linear",
    "maml --strategy.optimizer adam",
    "perfedavg",
]
NAMED = [("before", 3), ("in", 3), ("after", 3), ("line", 3), ("before", 1), ("in", 5)]
PAIRS = [(name, engine) for name in OURS for engine in ("loop", "vmap")]
KILLS = [(f"{name} --engine {engine}", NAMED[i % len(NAMED)]) for i, (name, engine) in enumerate(PAIRS)]
KILLS += [
    ("remembering:Remembers --engine loop", ("after", 4)),
    ("remembering:Remembers --engine vmap", ("states", 3)),
    ("flwr.serverapp.strategy:FedAdam --engine vmap", ("line", 4)),
]
KILLS += [(f"{OURS[i]} --engine loop", ("blocks", rng.key(0, "kill", i) % 14)) for i in range(3)]
KILLS += [(f"{OURS[3 + i]} --engine vmap", ("blocks", rng.key(1, "kill", i) % 14)) for i in range(3)]


@pytest.fixture(scope="module")
def killer() -> Iterator["subprocess.Popen[str]"]:
    """The process that forks the runs that are killed: kills.py."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(HERE), os.environ.get("PYTHONPATH", "")])}
    command = [sys.executable, str(HERE / "kills.py")]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
    ) as process:
        yield process
        assert process.stdin is not None
        process.stdin.close()


def words(strategy: str) -> list[str]:
    """The words of a strategy's command; stragglers mean nothing to a strategy of Flower's."""
    shown = [w for w in SMALL if w not in ("--system.stragglers", "0.3")] if "flwr" in strategy else SMALL
    return ["--strategy", *strategy.split(), *shown]


def only(folder: Path) -> Path:
    """The one run in a folder."""
    [found] = folder.iterdir()
    return found


def written(folder: Path) -> dict[str, Any]:
    """All that a run has written, without times and without the path of its folder."""
    tables = {
        name: [
            repeatable(json.loads(line)) for line in file.read_text().splitlines() if '"event":"resumed"' not in line
        ]
        for name in ("rounds", "clients", "events")
        for file in [folder / f"{name}.jsonl"]
    }
    summary = {
        k: v for k, v in json.loads((folder / "summary.json").read_text()).items() if k not in ("seconds", "run_dir")
    }
    return {**tables, "summary": summary}


@pytest.mark.parametrize(
    "strategy, where", KILLS, ids=[f"{s.split()[0]}-{s.split()[-1]}-{w}-{n}" for s, (w, n) in KILLS]
)
def test_a_killed_run_goes_on_as_if_it_had_not_been(
    strategy: str,
    where: tuple[str, int],
    killer: "subprocess.Popen[str]",
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.syspath_prepend(str(HERE))
    assert killer.stdin is not None and killer.stdout is not None
    killer.stdin.write(json.dumps([[*words(strategy), "--out", str(tmp_path / "killed")], *where]) + "\n")
    killer.stdin.flush()
    assert int(killer.stdout.readline()) == -9
    assert run.main([*words(strategy), "--out", str(tmp_path / "whole")]) == 0
    killed, whole = only(tmp_path / "killed"), only(tmp_path / "whole")
    assert not (killed / "summary.json").exists()
    assert run.main(["--resume", str(killed), "--quiet"]) == 0
    assert written(killed) == written(whole)
    assert (killed / "model.safetensors").read_bytes() == (whole / "model.safetensors").read_bytes()


class Breaks(Callback):
    """Interrupts a run after a round, as Ctrl-C does."""

    def __init__(self, after: int) -> None:
        self.after = after

    def on_round_start(self, run: Run) -> None:
        if run.round == self.after + 1:
            raise KeyboardInterrupt


@pytest.fixture
def broken(tmp_path: Path) -> Path:
    """A run of five rounds that was interrupted after the third."""
    from experiments.config.command_line import parse
    from experiments.runs.setup import build

    [config] = parse([*words("reptile"), "--checkpoint_keep", "0", "--out", str(tmp_path / "broken")]).configs
    summary, error = run.execute(build(config), True, [Breaks(3)])
    assert isinstance(error, KeyboardInterrupt) and summary["status"] == "stopped"
    return Path(summary["run_dir"])


def test_a_damaged_checkpoint_is_seen_and_the_one_before_it_used(
    broken: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    last = checkpoint.listed(broken)[-1]
    last.write_bytes(last.read_bytes()[:-1])
    assert run.main(["--resume", str(broken), "--quiet"]) == 0
    assert "its checksum is another" in capsys.readouterr().err
    assert run.main([*words("reptile"), "--out", str(tmp_path / "whole")]) == 0
    assert written(broken)["rounds"] == written(only(tmp_path / "whole"))["rounds"]


def test_a_finished_run_trains_nothing_and_can_be_made_longer(broken: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run.main(["--resume", str(broken), "--quiet"]) == 0
    before = written(broken)
    capsys.readouterr()
    assert run.main(["--resume", str(broken), "--quiet", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["digest"] == before["summary"]["digest"] and written(broken) == before
    assert run.main(["--resume", str(broken), "--quiet", "--rounds", "7"]) == 0
    after = written(broken)
    assert (
        after["summary"]["rounds"] == 7
        and after["rounds"][:5] == before["rounds"][:5]
        and load(broken).config["rounds"] == 7
    )


@pytest.mark.parametrize(
    "flags, message",
    [
        (["--local.lr", "0.5"], "local.lr = 0.5 (it began with 0.1)"),
        (
            ["--strategy", "fedavg", "--seed", "4"],
            "seed = 4 (it began with 0), strategy.anneal = None (it began with",
        ),
        (["--rounds", "2"], "rounds = 2: "),
        (["quickstart"], "leave 'quickstart' out"),
        (["--fork", "runs/x@3"], "leave '--fork' out"),
    ],
)
def test_another_config_is_refused_by_name(
    flags: list[str], message: str, broken: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = (broken / "rounds.jsonl").read_bytes()
    assert run.main([*flags[:1], *flags[1:], "--resume", str(broken)]) == 2
    assert message in capsys.readouterr().err and (broken / "rounds.jsonl").read_bytes() == before


def test_a_schedule_forbids_more_rounds_unless_it_has_its_own(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for flags, code in (
        (["--local.lr_schedule", "cosine"], 2),
        (["--local.lr_schedule", "cosine", "--schedule_rounds", "9"], 0),
    ):
        out = tmp_path / str(code)
        assert run.main([*words("fedavg"), *flags, "--out", str(out)]) == 0
        assert run.main(["--resume", str(only(out)), "--rounds", "9", "--quiet"]) == code
    assert "local.lr_schedule depends on the number of rounds, which was 5" in capsys.readouterr().err
    assert (
        run.main(
            [
                *last_of_each([*words("fedavg"), "--rounds", "9"]),
                "--local.lr_schedule",
                "cosine",
                "--out",
                str(tmp_path / "whole"),
            ]
        )
        == 0
    )
    assert written(only(tmp_path / "0"))["summary"]["digest"] == written(only(tmp_path / "whole"))["summary"]["digest"]


def test_a_run_that_never_got_to_a_checkpoint_starts_again(broken: Path, tmp_path: Path) -> None:
    shutil.rmtree(broken / "checkpoints")
    assert run.main(["--resume", str(broken), "--quiet"]) == 0
    assert run.main([*words("reptile"), "--out", str(tmp_path / "whole")]) == 0
    assert written(broken)["rounds"] == written(only(tmp_path / "whole"))["rounds"]


def test_a_fork_begins_at_a_round_of_another_run(
    broken: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run.main(["--resume", str(broken), "--quiet"]) == 0
    for name, flags in (("same", []), ("other", ["--strategy", "fedprox", "--strategy.mu", "0.1"])):
        assert run.main(["--fork", f"{broken}@2", *flags, "--quiet", "--out", str(tmp_path / name)]) == 0
    old, same, other = (
        written(broken)["rounds"],
        written(only(tmp_path / "same"))["rounds"],
        written(only(tmp_path / "other")),
    )
    assert [row["round"] for row in same] == [2, 3, 4, 5] and [r["digest"] for r in same] == [
        r["digest"] for r in old[2:]
    ]
    assert (
        other["summary"]["strategy"] == "fedprox"
        and other["rounds"][0]["digest"] == old[2]["digest"] != other["rounds"][-1]["digest"]
    )
    assert run.main(["--fork", f"{broken}@9", "--quiet"]) == 2
    assert (
        "it has checkpoints of rounds 1, 2, 3, 4, 5; a run with --checkpoint_keep 0 keeps all"
        in capsys.readouterr().err
    )


def test_two_processes_never_write_into_one_folder(broken: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with RoundLog(broken):
        assert run.main(["--resume", str(broken), "--quiet"]) == 2
    assert "another process has this run folder open" in capsys.readouterr().err
    assert run.main(["--resume", str(broken), "--quiet"]) == 0


@pytest.mark.parametrize(
    "flags, rounds, why",
    [
        (["--stop.target", "0.2", "--stop.on", "test"], 1, "stop.target = 0.2: accuracy 0."),
        (["--stop.patience", "2", "--stop.on", "test", "--local.lr", "0.0000001"], 2, "stop.patience = 2"),
        (["--time_limit", "0.000001"], 0, "time_limit = 1e-06"),
    ],
)
def test_a_run_ends_early(flags: list[str], rounds: int, why: str, tmp_path: Path) -> None:
    rate = [] if "--local.lr" in flags else ["--local.lr", "0.3"]
    plan = [*last_of_each([*words("fedavg"), "--evaluate_every", "1"]), "--local.epochs", "3", *rate, *flags]
    assert run.main([*plan, "--out", str(tmp_path)]) == 0
    summary = written(only(tmp_path))["summary"]
    assert (summary["status"], summary["rounds"]) == ("stopped", rounds) and summary["stopped"].startswith(why)
    assert run.main(["--resume", str(only(tmp_path)), "--quiet", "--time_limit", "1000"]) == 0
    again = written(only(tmp_path))["summary"]
    assert again == summary if why.startswith("stop.") else (again["status"], again["rounds"]) == ("completed", ROUNDS)


def test_a_full_disk_fails_the_run_and_loses_nothing(tmp_path: Path) -> None:
    """A limit on the size of files stands for the disk: rounds.jsonl cannot grow beyond it."""
    limit = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (8000, 8000))"
    program = f"import sys; from experiments import run; {limit}; sys.exit(run.main(sys.argv[1:]))"
    small = ["--model", "lr", "--clients", "6", "--cohort", "4", "--rounds", "40", "--checkpoint_every", "1", "--quiet"]
    command = [sys.executable, "-c", program, *small, "--out", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=HERE.parents[2], check=False)
    assert done.returncode == 1 and "File too large" in done.stderr and "--resume" in done.stderr
    assert load(only(tmp_path)).summary["status"] == "failed"
    assert run.main(["--resume", str(only(tmp_path)), "--quiet"]) == 0
    assert [row["round"] for row in written(only(tmp_path))["rounds"]] == list(range(41))


def test_metrics_from_python_are_named_where_a_run_goes_on_without_them(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    own = {"sure": lambda o, b: o.softmax(1).amax(1)}
    small = {"task": "digits", "model": "lr", "clients": 4, "local": {"steps": 1}, "out": str(tmp_path)}
    outcome = run.run(**small, rounds=1, metrics=own, set_metrics={"top": lambda o, y: o.max()})
    folder = outcome.summary["run_dir"]
    assert outcome.log.names == {"own_metrics": ["sure", "top"]}
    assert run.main(["--resume", folder, "--rounds", "2", "--quiet"]) == 0
    told = "warning: the run goes on without the metrics sure, top: they were given to run(...), and a run's folder"
    assert told in capsys.readouterr().err
    log = load(folder)
    assert log.events.loc[log.events["event"] == "metrics_lost", "names"].tolist() == [["sure", "top"]]
    assert log.rounds["sure"].isna().tolist() == [False, False, True]
