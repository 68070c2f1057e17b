"""The study of Omniglot: its runs' settings, that it goes on where it was, its page and its gates."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from experiments.config.command_line import parse
from experiments.studies import study_runs
from experiments.studies.meta import omniglot as study


def test_every_run_is_of_its_recipe_and_arms_of_a_condition_share_the_episodes() -> None:
    first, *others = study.CONDITIONS
    worlds = set()
    for condition, arm in [*((first, arm) for arm in first.arms), *((other, other.arms[-1]) for other in others)]:
        [config] = parse(condition.words(arm, 2)).configs
        assert config.strategy.name == {"fomaml": "maml"}.get(arm, arm) and config.personalize_queries == "alone"
        assert config.strategy.params.get("order", 2) == (1 if arm == "fomaml" else 2)
        assert config.rounds % config.personalize_every == 0 and config.task.params["seed"] == config.seed == 2
        held = config.partition.params["unseen_held_out"] * (condition.queries + condition.shots)
        assert held == pytest.approx(condition.queries, abs=1e-4)
        if arm != "reptile":
            assert config.strategy.params["support_size"] == condition.ways * condition.shots
        numbers = (config.clients, config.holdout_clients, config.cohort, config.rounds, config.model.params["width"])
        worlds.add((condition.title, repr(config.task.params), *numbers))
    assert len(worlds) == len(study.CONDITIONS)
    [full] = parse(study.FULL_WORDS).configs
    assert (full.cohort, full.model.params["width"], full.task.params["queries"]) == (32, 64, 15)


def test_the_command_runs_what_is_missing_and_writes_the_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    draw, alphabet = np.random.default_rng(0), np.arange(40) // 10
    images = draw.integers(0, 256, (40, 20, 28, 28), dtype=np.uint8)
    np.savez(tmp_path / "omniglot.npz", images=images, alphabet=alphabet, background=alphabet < 3)
    one = study.Condition("5 ways, 1 shot", 5, 1, 1, ("maml", "fomaml"))
    few = ["--cohort", "1", "--clients", "3", "--holdout_clients", "2", "--model.width", "2"]
    monkeypatch.setattr(study, "COMMON", few)
    monkeypatch.setattr(study, "CONDITIONS", [one])
    monkeypatch.setattr(study, "FULL_WORDS", one.words("maml", 0))
    monkeypatch.setattr(study_runs, "RESULTS", tmp_path)
    real, calls = study.run, list[str]()

    def counted(words: list[str]) -> int:
        calls.append(words[0])
        return real(words)

    monkeypatch.setattr(study, "run", counted)
    words = ["--out", str(tmp_path / "runs"), "--data_dir", str(tmp_path), "--seeds", "0"]
    code = study.main([*words, "--note", "Small."])
    rows = pd.read_csv(tmp_path / "omniglot.csv")
    assert rows["arm"].tolist() == ["maml", "fomaml"] and set(rows["personal_queries"]) == {"alone"}
    gap = rows["unseen_accuracy"][0] - rows["unseen_accuracy"][1]
    assert code == (0 if gap >= -0.005 else 1)
    page = (tmp_path / "omniglot.md").read_text(encoding="utf-8")
    assert f"| 5 ways, 1 shot | 0.20 | maml | 1 | {rows['unseen_accuracy'][0]:.3f} | " in page
    assert f"| maml - fomaml at least -0.005 | {gap:+.3f} | " in page and page.endswith("(.1, .4). Small.\n")
    assert (tmp_path / "omniglot.png").stat().st_size > 10_000
    assert study.main(words) == code and calls == ["omniglot-maml", "omniglot-fomaml", "omniglot-maml"]


def test_gates_are_of_means_over_paired_seeds(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def line(condition: int, arm: str, *values: float) -> list[dict[str, object]]:
        title = study.CONDITIONS[condition].title
        return [{"condition": title, "arm": arm, "seed": s, "unseen_accuracy": v} for s, v in enumerate(values)]

    rows = [*line(0, "maml", 0.80, 0.84), *line(0, "fomaml", 0.82, 0.83), *line(0, "anil", 0.80, 0.81)]
    rows += [*line(1, "maml", 0.9), *line(1, "r2d2", 0.896), *line(1, "metaoptnet", 0.894), *line(0, "r2d2", 0, 0)]
    found = [(condition[:14], wanted, verdict) for condition, wanted, _, verdict in study.gates(pd.DataFrame(rows))]
    assert found == [
        ("5 ways, 1 shot", "maml - fomaml at least -0.005", "holds"),  # -.02 and +.01: -.005
        ("5 ways, 1 shot", "anil - maml at least -0.01", "failed"),  # 0 and -.03: -.015
        ("5 ways, 5 shot", "r2d2 - maml at least -0.005", "holds"),
        ("5 ways, 5 shot", "metaoptnet - maml at least -0.005", "failed"),
    ]
    assert study.main(["--out", str(tmp_path), "--seeds", ""]) == 2
    assert "holds no run of this study" in capsys.readouterr().err
