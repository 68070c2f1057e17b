"""Stored configs of older runs."""

from pathlib import Path

import pytest

from experiments.config import stored
from experiments.config.recipe_files import CONFIG, make
from experiments.config.stored import of_today, stored_config
from fl_sim.errors import ConfigError

OLD = Path(__file__).parents[2] / "data" / "runs-67eb029"


@pytest.fixture
def older(monkeypatch: pytest.MonkeyPatch) -> None:
    """A version that has two keys more than the one that wrote the stored config."""
    monkeypatch.setattr(stored, "OLD_DEFAULTS", {"local.momentum": 0.5, "evaluate_every": 3})


@pytest.mark.usefixtures("older")
def test_a_key_that_a_stored_config_lacks_takes_the_value_that_repeats_its_run() -> None:
    completed = of_today({"seed": 1, "local": {"lr": 0.1}})
    assert completed == {"seed": 1, "local": {"lr": 0.1, "momentum": 0.5}, "evaluate_every": 3}


@pytest.mark.usefixtures("older")
def test_a_key_that_a_stored_config_has_stays() -> None:
    settings = {"local": {"momentum": 0.9}, "evaluate_every": 1}
    assert of_today(settings) == settings


@pytest.mark.usefixtures("older")
def test_a_recipe_takes_the_present_defaults(tmp_path: Path) -> None:
    path = tmp_path / CONFIG
    path.write_text("seed = 1\n")
    assert make(str(path)).evaluate_every == 1  # no run's folder
    (tmp_path / "rounds.jsonl").touch()
    assert make(str(path)).evaluate_every == 3


def test_the_partition_labels_of_a_run_before_digest_every_is_labels_equal() -> None:
    old = {"partition": {"name": "labels", "labels_per_client": 3, "seed": 5}}
    assert stored_config(old).partition.name == "labels-equal"
    assert stored_config(old).partition.params["labels_per_client"] == 3
    today = make(partition="labels")
    assert today.partition.name == "labels" and stored_config(today.to_dict()) == today
    assert stored_config({**old, "digest_every": 1}).partition.name == "labels"


def test_what_maml_ignored_is_refused_in_a_call_and_left_out_of_a_stored_config(tmp_path: Path) -> None:
    """The older run evaluated with ``local.lr``, which is stored as ``personalize_lr`` today."""
    old = make(str(OLD / "maml-finished" / CONFIG))
    assert old.personalize_lr == 0.1 and list(old.to_dict()["local"]) == ["batch_size", "last_batch"]
    assert stored_config(old.to_dict()) == old
    copied = tmp_path / "mine.toml"  # a recipe
    copied.write_text((OLD / "maml-finished" / CONFIG).read_text())
    with pytest.raises(ConfigError, match="local.clip_norm = 0.0: means nothing to maml"):
        make(str(copied))
    for key, value in (("lr", 0.2), ("optimizer", "adam"), ("momentum", 0.1), ("lr_schedule", "step")):
        with pytest.raises(ConfigError, match=f"local.{key} = {value!r}: means nothing to maml"):
            make(strategy="maml", local={key: value})


def test_the_rate_of_personal_evaluation_is_that_of_the_call_for_every_strategy(tmp_path: Path) -> None:
    path = tmp_path / "both.toml"
    path.write_text("personalize_steps = 2\n[partition]\nheld_out = 0.2\n[local]\nlr = 0.3\n")
    assert make(str(path), strategy="maml").personalize_lr == 0.3
    assert make(str(path), strategy="maml", personalize_lr=0.2).personalize_lr == 0.2
    assert make(str(path), strategy="fedavg").personalize_lr == 0.0  # local.lr, which it stores
    assert make(strategy="maml", personalize_steps=1, **{"partition.held_out": 0.2}).personalize_lr == 0.1


def test_an_older_run_of_perfedavg_has_the_fixed_step_of_its_time() -> None:
    old = make(str(OLD / "perfedavg-finished" / CONFIG))
    assert (old.strategy.params["order"], old.strategy.params["hf_step"]) == ("hf", "fixed")
    assert stored_config(old.to_dict()) == old
    today = make(strategy="perfedavg", **{"strategy.order": "hf"})
    assert today.strategy.params["hf_step"] == "scaled" and stored_config(today.to_dict()) == today
    first = of_today({"strategy": {"name": "perfedavg", "order": "fo", "delta": 1e-3}})  # there no step acts
    assert first["strategy"] == {"name": "perfedavg", "order": "fo", "delta": 1e-3}
    assert "hf_step" not in of_today({"strategy": {"name": "fedavg"}})["strategy"]


@pytest.mark.parametrize("folder", ["lib/python3/dist-packages", ".local/lib/python3.11/site-packages", "mine"])
def test_functions_of_modules_installed_anywhere_are_not_the_users_own(
    folder: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The packages of the system or of a user are outside the folders of this environment."""
    module = f"library_in_{folder.count('/')}"
    (tmp_path / folder).mkdir(parents=True)
    (tmp_path / folder / f"{module}.py").write_text("def load(path):\n    return path\n")
    monkeypatch.syspath_prepend(str(tmp_path / folder))
    if folder == "mine":
        stored.check_component("model", f"{module}:load")
        return
    with pytest.raises(ConfigError, match="is no model, and calling it could do anything"):
        stored.check_component("model", f"{module}:load")
