"""``bench.engines``: its figures, the table, and the recipes that it has."""

import json
from pathlib import Path

from experiments.bench import ROOT
from experiments.bench.engines import __main__ as engines
from experiments.bench.engines.recipe_cases import CASES, META
from experiments.bench.tables import engine_table
from experiments.config.command_line import parse


def test_every_recipe_has_a_case_with_flags_of_today() -> None:
    recipes = {path.stem for path in (ROOT / "experiments" / "recipes").glob("*.toml")}
    assert {flags.split()[0] for flags in CASES.values()} == recipes
    assert {flags.split()[0] for flags in META.values()} <= recipes
    kinds = {flags.partition(" ")[2]: flags for flags in CASES.values()}  # one of each kind of shortening
    assert all(parse(flags.split()).configs for flags in kinds.values())


def test_every_figure_is_in_the_table(tmp_path: Path) -> None:
    out, case = tmp_path / "engines.json", "--clients 4 --model lr --strategy fedavg,maml"
    assert engines.main(["--cases", case, "--rounds", "2", "--out", str(out)]) == 0
    figures = json.loads(out.read_text())
    [fedavg, maml] = figures["recipes"][case]
    assert (fedavg["strategy"], fedavg["parameters"], fedavg["batch"], fedavg["auto"]) == ("fedavg", 650, 32, "vmap")
    assert 3.9 < fedavg["at_once"] <= 4 and fedavg["padded"] < 0.1 and maml["steps"] == 1
    assert fedavg["auto_over_best"] == fedavg["vmap_s"] / min(fedavg["vmap_s"], fedavg["loop_s"]) >= 1
    [head, _, first, *_] = engine_table.markdown(figures).splitlines()
    assert "clients at a time" in head and "| fedavg " in first and "| vmap | " in first.replace("  ", "")


def test_figures_of_other_cases_stay_and_vmap_has_no_time_where_it_cannot_run(tmp_path: Path) -> None:
    out, case = (
        tmp_path / "engines.json",
        "--clients 2 --model cnn-bn --model.width 8 --local.steps 1 --silo.processes 1",
    )
    out.write_text(json.dumps({"recipes": {"other": [], case: ["old"]}}))
    assert engines.main(["--cases", case, "--rounds", "2", "--add", "--out", str(out)]) == 0
    figures = json.loads(out.read_text())
    assert list(figures["recipes"]) == ["other", case]
    [row] = figures["recipes"][case]
    assert row["vmap_s"] is None and (row["auto"], row["auto_over_best"]) == ("loop", 1.0)
    assert "| - " in engine_table.markdown(figures).splitlines()[2]
