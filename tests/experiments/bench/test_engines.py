"""``bench.engines``: its figures, the table, and the recipes that it has."""

import json
from pathlib import Path

from experiments.bench import ROOT
from experiments.bench.engines import __main__ as engines
from experiments.bench.tables import engine_table


def test_recipes_are_cases_and_every_figure_is_in_the_table(tmp_path: Path) -> None:
    recipes = {path.stem for path in (ROOT / "experiments" / "recipes").glob("*.toml")}
    known = {flags.split()[0] for flags in [*engines.CASES.values(), *engines.META.values()]}
    assert known <= recipes and {"quickstart", "fedprox-synthetic", "mcmahan-2nn", "digits-deploy"} <= known
    out, case = tmp_path / "engines.json", "--clients 4 --model lr --strategy fedavg,maml"
    assert engines.main(["--cases", case, "--rounds", "2", "--out", str(out)]) == 0
    figures = json.loads(out.read_text())
    [fedavg, maml] = figures["recipes"][case]
    assert (fedavg["strategy"], fedavg["parameters"], fedavg["batch"], fedavg["auto"]) == ("fedavg", 650, 32, "vmap")
    assert 3.9 < fedavg["at_once"] <= 4 and fedavg["padded"] < 0.1 and maml["steps"] == 1
    assert fedavg["auto_over_best"] == fedavg["vmap_s"] / min(fedavg["vmap_s"], fedavg["loop_s"]) >= 1
    [head, _, first, *_] = engine_table.markdown(figures).splitlines()
    assert "clients at a time" in head and "| fedavg " in first and "| vmap | " in first.replace("  ", "")
