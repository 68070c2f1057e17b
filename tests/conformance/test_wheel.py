"""The wheel, installed without dependencies into an empty folder, and its console script in a folder of somebody else.

That folder holds an ``experiments`` package, a ``clients`` package, a ``strategies.py`` and an ``fl_sim.py`` that raise
when they are imported, and a module with a strategy, which notes which packages it got.
"""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
PACKAGES = ("fl_sim", "strategies", "clients", "experiments")
MODULE = """
import os
from strategies import fedavg

with open(os.environ["FL_SIM_TEST_FILE"], "a") as file:
    print(os.getpid(), fedavg.__file__, file=file)

class Mine(fedavg.FedAvg):
    "A user's own."
"""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that the wheel of this checkout is installed in."""
    pytest.importorskip("setuptools", minversion="77")
    source, folder = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("installed")
    for package in PACKAGES:
        shutil.copytree(ROOT / package, source / package, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    build = f"from setuptools.build_meta import build_wheel; build_wheel({str(source)!r})"
    subprocess.run([sys.executable, "-c", build], cwd=source, check=True, capture_output=True)
    [file] = source.glob("*.whl")
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", "--target", str(folder)]
    subprocess.run([*pip, str(file)], cwd=source, check=True, capture_output=True)
    return folder


@pytest.fixture
def elsewhere(tmp_path: Path) -> Path:
    """The folder of somebody else."""
    decoy = "raise RuntimeError('a module of the user')\n"
    for package in ("experiments", "clients"):
        (tmp_path / package).mkdir()
        (tmp_path / package / "__init__.py").write_text(decoy)
    for module in ("strategies.py", "fl_sim.py"):
        (tmp_path / module).write_text(decoy)
    (tmp_path / "my_module.py").write_text(MODULE)
    return tmp_path


def fl_sim(wheel: Path, folder: Path, *words: str) -> str:
    """What the installed command prints in ``folder``."""
    env = {k: v for k, v in os.environ.items() if k != "PYTHONSAFEPATH"}
    env |= {"PYTHONPATH": str(wheel), "FL_SIM_TEST_FILE": str(folder / "imported.txt")}
    command = [sys.executable, str(wheel / "bin" / "fl-sim"), *words]
    done = subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def run(wheel: Path, folder: Path, *words: str) -> dict[str, str]:
    """The summary of one round of quickstart with the user's strategy; each process imported the wheel's packages."""
    settings = ["--strategy", "my_module:Mine", "--rounds", "1", "--quiet", "--json", "--out", "runs"]
    summary: dict[str, str] = json.loads(fl_sim(wheel, folder, "run", "quickstart", *settings, *words))
    lines = (folder / "imported.txt").read_text().splitlines()
    assert {line.partition(" ")[2] for line in lines} == {str(wheel / "strategies" / "fedavg.py")}
    return {**summary, "processes": str(len({line.partition(" ")[0] for line in lines}))}


def test_the_wheel_holds_every_package_and_recipe(wheel: Path) -> None:
    files = [file for package in PACKAGES for file in (ROOT / package).rglob("*") if file.suffix in (".py", ".toml")]
    missing = [file for file in files if not (wheel / file.relative_to(ROOT)).is_file()]
    assert len(files) > 200 and not missing


def test_commands_in_a_folder_of_somebody_else(wheel: Path, elsewhere: Path) -> None:
    assert fl_sim(wheel, elsewhere, "--version").startswith("fl-sim ")
    listed = fl_sim(wheel, elsewhere, "list")
    assert all(name in listed for name in ("fedavg", "dirichlet", "digits", "quickstart"))
    plan = fl_sim(wheel, elsewhere, "deploy", "plan", "--hosts", "server,laptop,pi")
    assert "flower-superlink" in plan and "partition-id=1 num-partitions=2" in plan


def test_quickstart_with_a_strategy_of_the_user(wheel: Path, elsewhere: Path) -> None:
    summary = run(wheel, elsewhere, "--engine", "loop")
    assert (summary["status"], summary["strategy"], summary["processes"]) == ("completed", "my_module:Mine", "1")
    assert (elsewhere / "runs").is_dir()


@pytest.mark.ray
def test_workers_of_ray_import_the_wheel_too(wheel: Path, elsewhere: Path) -> None:
    summary = run(wheel, elsewhere, "--engine", "ray", "--ray.num_workers", "2", "--ray.engine", "vmap")
    assert summary["status"] == "completed" and int(summary["processes"]) >= 2  # a worker may be late


def test_the_app_for_devices_is_made_of_the_wheel(wheel: Path, elsewhere: Path) -> None:
    """``experiments.deploy up`` writes it; Flower builds its bundle of it."""
    code = f"""
import sys; sys.path.pop(0)
from pathlib import Path
from experiments.deploy import bundle
assert bundle.__file__.startswith({str(wheel)!r})
bundle.write_bundle(Path("app"))
"""
    env = os.environ | {"PYTHONPATH": str(wheel), "FLWR_HOME": str(elsewhere / "home")}
    subprocess.run([sys.executable, "-c", code], cwd=elsewhere, env=env, check=True)
    flwr = [str(Path(sys.executable).with_name("flwr")), "build", "--app", "app"]
    done = subprocess.run(flwr, cwd=elsewhere, env=env, capture_output=True, text=True)
    assert done.returncode == 0 and list(elsewhere.glob("*.fab")), done.stdout + done.stderr
