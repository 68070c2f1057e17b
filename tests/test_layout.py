"""The source tree obeys its rules: layers, sizes, names, and which file may use what. Each rule sees what breaks it."""

import ast
from collections.abc import Callable, Iterable
from pathlib import Path

from tests.layout_rules import (
    FACADES,
    FLOORS,
    FLOWER_FILES,
    climbs,
    crowded,
    foreign_private_names,
    mirrors,
    names_its_paper,
    random_sources,
    repeated,
    too_long,
    too_wide,
    undocumented_flower,
)
from tests.source_tree import (
    LAYERS,
    MODULES,
    ROOT,
    TESTS,
    TREES,
    aliases,
    cycles,
    dotted,
    full,
    graph,
    imported,
    inside,
    module_name,
    parse,
    private_names,
)

FILES = MODULES + TESTS


def offenders(files: Iterable[Path], check: Callable[[Path], list[str]]) -> dict[str, list[str]]:
    """File -> what a check finds in it, for the files where it finds something."""
    return {str(file): found for file in files if (found := check(file))}


def source(file: Path) -> str:
    """The text of a file of this repository."""
    return (ROOT / file).read_text(encoding="utf-8")


def test_a_layer_imports_none_above_it() -> None:
    def upward(file: Path) -> list[str]:
        above = {*LAYERS[LAYERS.index(file.parts[0]) + 1 :], "tests"}
        return [name for name in imported(parse(file)) if inside(name, above)]

    assert offenders(MODULES, upward) == {}


def test_every_folder_of_fl_sim_has_a_floor() -> None:
    places = {name.split(".")[1] for name in TREES if name.startswith("fl_sim.")} - {"local"}
    assert places <= {place for places in FLOORS for place in places}


def test_fl_sim_imports_down_the_stair() -> None:
    names = [name for name in TREES if inside(name, {"fl_sim"}) and name not in FACADES]
    assert {name: found for name in names if (found := climbs(name, TREES))} == {}


def test_no_imports_go_in_a_circle() -> None:
    assert cycles(graph(TREES)) == []


def test_only_two_files_use_flower_beyond_its_documented_api() -> None:
    others = [file for file in MODULES if file not in FLOWER_FILES]
    assert offenders(others, lambda file: undocumented_flower(parse(file))) == {}


def test_private_names_stay_in_their_file() -> None:
    assert offenders(MODULES, lambda file: foreign_private_names(file, private_names(parse(file)))) == {}


def test_only_one_file_makes_randomness() -> None:
    others = [file for file in MODULES if file != Path("fl_sim/rng.py")]
    assert offenders(others, lambda file: random_sources(parse(file))) == {}


def test_files_and_functions_stay_short() -> None:
    assert offenders(FILES, lambda file: too_long(source(file))) == {}


def test_lines_stay_narrow() -> None:
    assert offenders(FILES, lambda file: too_wide(source(file))) == {}


def test_a_folder_holds_about_a_dozen_files() -> None:
    assert crowded(MODULES) == []


def test_a_file_name_occurs_once_in_a_package() -> None:
    assert repeated(MODULES) == []


def test_the_tests_mirror_the_source_tree() -> None:
    tests = [test for test in TESTS if test.parts[1] in LAYERS and test.name.startswith("test_")]
    assert [str(test) for test in tests if not mirrors(test, MODULES)] == []


def test_every_file_opens_with_what_it_holds() -> None:
    assert [str(file) for file in FILES if source(file).strip() and not ast.get_docstring(parse(file))] == []
    assert [str(file) for file in FILES if file.name == "utils.py"] == []


def test_a_strategy_opens_with_its_paper() -> None:
    strategies = [m for m in MODULES if m.parent == Path("strategies") and m.stem != "__init__"]
    assert [str(file) for file in strategies if not names_its_paper(ast.get_docstring(parse(file)) or "")] == []


def test_the_checks_see_what_they_look_for() -> None:
    code = ast.parse(
        "import numpy.random as r\nfrom flwr.common import x\n"
        "def f():\n    from clients import app\n    torch.manual_seed(0)\n    import_module('a.b')"
    )
    assert list(imported(code)) == ["numpy.random", "flwr.common.x", "clients.app", "a.b"]
    assert "torch.manual_seed" in {dotted(node) for node in ast.walk(code)}
    assert inside("flwr.common.x", {"flwr"}) and not inside("flwrx", {"flwr"})
    assert {path.parts[0] for path in MODULES} <= set(LAYERS) and Path("fl_sim/tree.py") in MODULES
    assert module_name(Path("a/__init__.py")) == "a" and module_name(Path("a/b.py")) == "a.b"
    assert random_sources(code) == ["numpy.random", "torch.manual_seed"]
    assert full(ast.parse("r.seed").body[0].value, aliases(code)) == "numpy.random.seed"  # type: ignore[attr-defined]


def test_the_check_of_the_stair_sees_upward_sideways_and_hidden_imports() -> None:
    up = "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from fl_sim import Grid\n"
    sources = {
        "fl_sim": "from fl_sim.grids.simulation import Grid",
        "fl_sim.grids.simulation": "from fl_sim.executors import ray\nfrom fl_sim.grids import nodes\nimport numpy",
        "fl_sim.grids.nodes": "",
        "fl_sim.executors.ray": up,
        "fl_sim.logs.writer": "def f():\n    from fl_sim.wire.flower import quiet",
        "fl_sim.wire.flower": "import fl_sim",
    }
    trees = {name: ast.parse(text) for name, text in sources.items()}
    assert climbs("fl_sim.grids.simulation", trees) == []
    assert climbs("fl_sim.executors.ray", trees) == ["fl_sim.grids.simulation"]
    assert climbs("fl_sim.logs.writer", trees) == ["fl_sim.wire.flower"]
    assert climbs("fl_sim.wire.flower", trees) == ["fl_sim"]


def test_the_check_of_cycles_follows_what_a_package_exports() -> None:
    sources = {
        "a": "from a.one import One",
        "a.one": "import b.two\nimport a.three",
        "a.three": "",
        "b.two": "def f():\n    from a import One",
    }
    trees = {name: ast.parse(text) for name, text in sources.items()}
    assert cycles(graph(trees)) == [["a.one", "b.two"]]
    assert cycles(graph(trees | {"b.two": ast.parse("import a.three")})) == []


def test_the_check_of_flower_sees_reflection_too() -> None:
    code = "from fl_sim.wire import flower\nimport flwr.app\nflower.quiet()\nvars(flower)['x']\ngetattr(flower, name)\n"
    code += "from flwr.server import Grid\nflower.__dict__\nvars(run.strategy)"
    assert undocumented_flower(ast.parse(code)) == ["flwr.server.Grid", *["fl_sim.wire.flower"] * 3]


def test_the_check_of_private_names_sees_each_way_to_one() -> None:
    code = (
        "import torch\nfrom fl_sim import rng\nfrom fl_sim.rng import _mix\ntorch._C.x\nrng._own\nmodel._parameters\n"
    )
    code += (
        "_own = 1\nself._inherited\nsuper()._inherited\nx._own\nx.__class__\ngetattr(x, '_hidden', None)\nos._exit(1)"
    )
    found = private_names(ast.parse(code))
    foreign = {"fl_sim.rng._mix", "torch._C", "torch._C.x", "fl_sim.rng._own", "model._parameters", "x._hidden"}
    assert set(found) | {"torch._C.x"} == foreign | {"os._exit"}
    assert set(foreign_private_names(Path("clients/app.py"), found)) | {"torch._C.x"} == foreign
    kernel = foreign_private_names(Path("fl_sim/kernels/layers.py"), found)
    assert set(kernel) == {"fl_sim.rng._mix", "fl_sim.rng._own"}
    assert foreign_private_names(Path("fl_sim/executors/ray/team.py"), ["ray._private", "torch._C"]) == ["torch._C"]
    shapes = ["clients.models._shapes.flat", "clients.models._shapes._flat"]
    assert foreign_private_names(Path("clients/models/cnn.py"), shapes) == shapes[1:]
    assert foreign_private_names(Path("clients/app.py"), shapes) == shapes


def test_the_checks_of_sizes_and_names_see_what_they_look_for() -> None:
    function = "def f():\n" + "    pass\n" * 59
    assert too_long(function) == ["f"] and too_long(function.replace("    pass\n", "", 1)) == []
    assert too_long("#\n" * 300) == ["300 lines"] and too_long("#\n" * 299) == []
    assert too_wide("#\n#" + "x" * 120) == ["line 2"] and too_wide("#" * 120) == []
    assert names_its_paper("A. Author, 2017") and names_its_paper("No paper.") and not names_its_paper("Great: 12345")
    assert crowded([Path(f"fl_sim/a/{n}.py") for n in [*range(13), "__init__"]]) == []
    assert crowded([Path(f"fl_sim/a/{n}.py") for n in range(14)]) == ["fl_sim/a: 14"]
    files = [Path(p) for p in ("a/x/y.py", "a/z/y.py", "b/y.py", "a/base.py", "a/x/base.py")]
    assert repeated(files) == ["a: y"]
    sources = [Path(p) for p in ("fl_sim/grids/deployed.py", "fl_sim/grids/__init__.py", "fl_sim/ray/base.py")]
    good = ("fl_sim/grids/test_deployed.py", "fl_sim/grids/test_deployed_late.py", "fl_sim/test_ray.py")
    bad = ("fl_sim/grids/test_deployedlate.py", "fl_sim/test_deployed.py", "fl_sim/grids/test_init.py")
    assert [mirrors(Path("tests") / p, sources) for p in good + bad] == [True] * 3 + [False] * 3
