"""What ``experiments.backends`` says of two runs. That the backends agree: tests/conformance."""

from pathlib import Path

from experiments.backends import compared, difference
from experiments.run import run


def made(out: Path, **settings: object) -> Path:
    return Path(run(out=str(out), strategy="fedavg", rounds=2, clients=3, **settings).summary["run_dir"])


def test_what_is_said_of_two_runs(tmp_path: Path) -> None:
    plain, again, batched = (made(tmp_path, engine=engine) for engine in ("loop", "loop", "vmap"))
    assert difference(plain, again, rounded=False) == ("same bits, same rows", True)
    assert difference(plain, batched, rounded=True)[1] and not difference(plain, batched, rounded=False)[1]
    assert not difference(plain, made(tmp_path, engine="loop", seed=1), rounded=True)[1]
    log = again / "clients.jsonl"
    log.write_text("".join(log.read_text().splitlines(keepends=True)[:-1]))
    assert difference(plain, again, rounded=False) == ("same bits, other rows", False)
    lines, agree = compared({"loop": {"fedavg": plain}, "vmap": {"fedavg": batched}})
    assert agree and lines[0] == "| strategy | loop: digest | vmap |" and lines[2].startswith("| fedavg | `")
