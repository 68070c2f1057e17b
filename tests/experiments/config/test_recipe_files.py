"""Run folders by name: ``RUN@N``, where the path of RUN may hold ``@``."""

from pathlib import Path

import pytest

from experiments.config.recipe_files import fork_parts
from experiments.run import main
from fl_sim import load
from tests.experiments.config.tiny_world import __name__ as world


@pytest.mark.parametrize(
    "fork, parts",
    [
        ("runs/x", ("runs/x", None)),
        ("runs/x@", ("runs/x", "")),
        ("runs/x@3", ("runs/x", "3")),
        ("me@home/x@3", ("me@home/x", "3")),
        ("runs/x@three", ("runs/x", "three")),
        ("@3", ("", "3")),
    ],
)
def test_the_last_at_parts_run_and_round(fork: str, parts: tuple[str, str | None]) -> None:
    assert fork_parts(fork) == parts


def test_a_run_below_a_folder_with_an_at_is_forked(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out, one = tmp_path / "me@home", tmp_path / "one"
    words = f"--task {world}:tiny --model {world}:linear --rounds 2 --checkpoint_every 1 --quiet --out".split()
    assert main([*words, str(out)]) == 0
    [run] = out.iterdir()
    for number, fork in enumerate((f"{run}@1", f"{run}")):
        assert main(["--fork", fork, "--rounds", "3", "--quiet", "--out", f"{one}{number}"]) == 0
        [forked] = Path(f"{one}{number}").iterdir()
        assert load(forked).rounds["round"].tolist() == [[1, 2, 3], [2, 3]][number]
    for text in ("x", "", "1.0"):  # $N may be an unset variable of the shell
        assert main(["--fork", f"{run}@{text}", "--rounds", "3"]) == 2
        assert f"'{text}' is no round; it must be RUN@N or RUN" in capsys.readouterr().err
    assert main(["--resume", str(run), "--rounds", "1"]) == 2
    assert "rounds = 1: " in (error := capsys.readouterr().err) and "has done 2; give at least as many" in error
