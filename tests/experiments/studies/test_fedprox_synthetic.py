"""The study of FedProx on synthetic data: what it runs, the ratios and their mean, the page."""

from pathlib import Path

import pandas as pd
import pytest

from experiments.studies import fedprox_synthetic as study
from experiments.studies.fedprox_synthetic import DROP, GATE, KEEP, PROX, geometric_mean, main, ratios

FEW = ["--rounds", "2", "--clients", "4", "--cohort", "3", "--local.epochs", "3", "--local.batch_size", "0"]


def table(losses: dict[tuple[str, int], tuple[float, float, float]]) -> pd.DataFrame:
    """A line a run."""
    rows = [
        {"data": data, "seed": seed, "arm": arm, "train_set_loss": loss}
        for (data, seed), own in losses.items()
        for arm, loss in zip((DROP, KEEP, PROX), own, strict=True)
    ]
    return pd.DataFrame(rows)


def test_ratios_pair_the_arms_of_one_draw_and_their_mean_is_geometric() -> None:
    every = table({("a", 0): (0.8, 0.4, 0.2), ("a", 1): (0.5, 0.5, 0.5), ("b", 0): (0.2, 0.1, 0.05)})
    found = ratios(every, PROX)
    assert found["ratio"].tolist() == [0.25, 1.0, 0.25] and found["seed"].tolist() == [0, 1, 0]
    # (1/4 * 1 * 1/4)^(1/3) = 2^(-4/3); ln: -1.386, 0, -1.386; s = .8004, t(.975, 2) = 4.3027, half = 1.988
    mean, low, high = geometric_mean(found["ratio"])
    assert mean == pytest.approx(2 ** (-4 / 3)) and high / mean == pytest.approx(mean / low) == pytest.approx(
        7.302, rel=1e-3
    )
    assert len(ratios(every[~((every["seed"] == 1) & (every["arm"] == DROP))], PROX)) == 2  # a draw without its pair


def test_the_command_runs_what_is_missing_and_writes_the_page(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(study, "RESULTS", tmp_path)
    words = ["--out", str(tmp_path / "runs"), "--data", "0", "--seed", "0,1", *FEW]
    assert main(words) == 0
    rows = pd.read_csv(tmp_path / "fedprox-synthetic.csv")
    assert sorted(zip(rows["arm"], rows["seed"], strict=True)) == [(a, s) for a in (DROP, KEEP, PROX) for s in (0, 1)]
    assert rows["train_set_loss"].notna().all() and rows["digest"].nunique() == 6
    page = (tmp_path / "fedprox-synthetic.md").read_text(encoding="utf-8")
    assert "| Synthetic(1, 1), data seed 0 | 1 |" in page and "over 2 draws: " in page and f"at most {GATE}" in page
    assert "Tuned: nothing" in page and "; seeds 0, 1; " in page
    monkeypatch.setattr(study, "run", lambda words: pytest.fail(f"run again: {words}"))
    assert main(words) == 0  # all runs are there
    assert main(["--out", str(tmp_path / "elsewhere"), "--data", ""]) == 2
    (config,) = (tmp_path / "runs").glob("drop_seed_0*/*/config.toml")
    (config.parent / "checksums.json").unlink()
    config.write_text(config.read_text().replace("rounds = 2", "rounds = 3"))
    capsys.readouterr()
    assert main([*words[:2], "--data", ""]) == 2 and "holds runs that differ in rounds" in capsys.readouterr().err


def test_the_gate_needs_nine_draws(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(study, "written", lambda *_: "")
    every = {(f"Synthetic(1, 1), data seed {d}", s): (1.0, 0.9, 0.7) for d in range(3) for s in range(3)}
    for draws, code in ((list(every), 1), (list(every)[:8], 0)):
        monkeypatch.setattr(study, "outcomes", lambda _, own=draws: (table({k: every[k] for k in own}), []))
        assert main(["--out", str(tmp_path), "--data", ""]) == code
