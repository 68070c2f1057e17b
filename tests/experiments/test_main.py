"""The console script: help, version, unknown commands, and that each command is the module of its name."""

import subprocess
import sys
from importlib.metadata import PackageNotFoundError
from importlib.util import find_spec
from pathlib import Path

import pytest

from experiments.__main__ import COMMANDS, main, usage
from experiments.installation import ROOT


def test_help_has_a_line_for_each_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert [main(words) for words in ([], ["--help"], ["-h"], ["help"])] == [0] * 4
    assert capsys.readouterr().out == f"{usage()}\n" * 4
    listed = [line.split()[0] for line in usage().splitlines() if line.startswith("  ") and "fl-sim" not in line]
    assert listed == list(COMMANDS) and max(map(len, usage().splitlines())) <= 120


def test_each_command_is_a_module_that_python_can_run() -> None:
    for name in COMMANDS:
        spec = find_spec(f"experiments.{name}")
        assert spec is not None and (spec.submodule_search_locations is None or find_spec(f"{spec.name}.__main__"))


def test_an_unknown_command_exits_2_with_the_nearest_name(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["rnu"]) == 2 and main(["--rounds"]) == 2
    near, far = capsys.readouterr().err.splitlines()
    assert near.startswith("error: 'rnu': unknown (did you mean 'run'?); choose one of run, sweep, list, ")
    assert far.startswith("error: '--rounds': unknown") and "or --help" in far


def test_the_version_of_a_checkout_that_is_not_installed(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def absent(name: str) -> str:
        raise PackageNotFoundError(name)

    monkeypatch.setattr("importlib.metadata.version", absent)
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"fl-sim (not installed; a checkout in {ROOT})\n"


def test_version_help_and_list_import_neither_torch_nor_flower() -> None:
    code = "import sys; from experiments.__main__ import main; main(['--version']), main(['--help']), main(['x'])\n"
    code += "from experiments.early_help import show_if_asked; assert 'fl_sim' not in sys.modules; main(['list'])\n"
    code += "sys.orig_argv = ['fl-sim', 'run', '--strategy', 'fedprox', '--help']\n"
    code += "try: show_if_asked()\nexcept SystemExit as end: assert end.code == 0\n"
    code += "print(sorted({name.partition('.')[0] for name in sys.modules} & {'torch', 'flwr', 'numpy', 'pandas'}))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0 and done.stdout.splitlines()[-1] == "[]"


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["run", "quickstart", "--rounds", "0"], 2, "rounds = 0"),
        (["deploy", "down"], 2, "'down': unknown"),
        (["analysis", "no_such_folder"], 2, "no_such_folder"),
    ],
)
def test_a_command_gets_its_arguments_and_gives_its_exit_code(
    words: list[str], code: int, said: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", ["fl-sim", "something", "else"])
    for module in (f"experiments.{words[0]}", f"experiments.{words[0]}.__main__"):
        monkeypatch.delitem(sys.modules, module, raising=False)  # runpy warns of a module that is imported already
    with pytest.raises(SystemExit) as caught:
        main(words)
    assert caught.value.code == code and said in capsys.readouterr().err
    assert sys.argv == ["fl-sim", "something", "else"]


def test_a_command_that_does_not_exit_is_a_success(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """``experiments.list`` returns."""
    assert main(["list", "--json"]) == 0 and '"fedavg"' in capsys.readouterr().out
