"""How ``experiments.backends`` compares runs. That the backends agree is tested in tests/conformance."""

from pathlib import Path

import pytest

from experiments.backends import DEFAULT, comparison, difference, main, possible
from experiments.config.command_line import parse
from experiments.run import run


def finished(out: Path, **settings: object) -> Path:
    return Path(run(out=str(out), strategy="fedavg", rounds=2, clients=3, **settings).summary["run_dir"])


def test_two_runs_differ_in_bits_or_in_rows_or_not_at_all(tmp_path: Path) -> None:
    plain, again, batched = (finished(tmp_path, engine=engine) for engine in ("loop", "loop", "vmap"))
    assert difference(plain, again, rounded=False) == ("same bits, same rows", True)
    assert difference(plain, batched, rounded=True)[1] and not difference(plain, batched, rounded=False)[1]
    assert not difference(plain, finished(tmp_path, engine="loop", seed=1), rounded=True)[1]
    (again / "checksums.json").unlink()  # else the log that is shortened here is refused as damaged
    log = again / "clients.jsonl"
    log.write_text("".join(log.read_text().splitlines(keepends=True)[:-1]))
    assert difference(plain, again, rounded=False) == ("same bits, other rows", False)
    lines, agree = comparison({"loop": {"fedavg": plain}, "vmap": {"fedavg": batched}})
    assert agree and lines[0] == "| strategy | loop: digest | vmap |" and lines[2].startswith("| fedavg | `")


def test_help_starts_no_run(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0
    assert "python -m experiments.backends" in capsys.readouterr().out


@pytest.mark.parametrize("words", [["--out", "x"], ["--out=x"], ["digits-deploy", "--engine", "loop"]])
def test_what_each_backend_sets_itself_is_refused(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(words) == 2
    assert "leave them out" in capsys.readouterr().err


def test_the_default_is_every_strategy_that_all_backends_can_run(capsys: pytest.CaptureFixture[str]) -> None:
    found, told = possible([DEFAULT]), capsys.readouterr().out
    assert {"fedavg", "scaffold", "fedbn"} <= set(found) and not {"fedasync", "adaptive"} & set(found)
    assert "without fedasync: strategy.name = 'fedasync'" in told and "without adaptive: validation = 0" in told
    assert len(parse([DEFAULT, "--strategy", ",".join(found)]).configs) == len(found)
    with pytest.raises(ValueError, match="rouns"):
        possible([DEFAULT, "--rouns", "3"])
