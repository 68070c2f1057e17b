"""Clients before and after fine-tuning: every client of the last personal evaluation, those that never train apart."""

from pathlib import Path

import pytest

from experiments.analysis.pictures.personal_picture import personal_picture
from fl_sim.logs.writer import RoundLog


def test_each_client_is_drawn_once(tmp_path: Path) -> None:
    with RoundLog.create(tmp_path, "run", '[strategy]\nname = "fedavg"\n') as log:
        for number in (1, 2):
            values = [(0.2, 0.6, False), (0.2, 0.6, False), (0.5, 0.4, False), (0.1 * number, 0.9, True)]
            log.clients(
                {"round": number, "client": c, "phase": "personal", "accuracy_before": b, "accuracy": a, "unseen": u}
                for c, (b, a, u) in enumerate(values)
            )
            log.clients([{"round": number, "client": 9, "phase": "train", "loss": 1.0}])
            log.round({"round": number})
    left, right = personal_picture(log.path, tmp_path / "p.pdf").axes
    assert (tmp_path / "p.pdf").read_bytes().startswith(b"%PDF-")
    train, new = right.collections
    assert train.get_offsets().tolist() == [[0.2, 0.6], [0.5, 0.4]] and train.get_sizes().tolist() == [48, 24]
    assert new.get_offsets().tolist() == [[0.2, 0.9]]
    assert left.lines[0].get_xdata().tolist() == [0, 0.2, 0.2, 0.2, 0.5, 1]
    assert [text.get_text() for text in left.get_legend().get_texts()][1] == "after fine-tuning, mean 0.625"
    assert personal_picture(log.path, server_round=1).axes[1].collections[1].get_offsets().tolist() == [[0.1, 0.9]]
    with pytest.raises(ValueError, match="server_round = 3: has no personal evaluation; these have: 1, 2"):
        personal_picture(log.path, server_round=3)


def test_a_run_without_personal_evaluation_is_refused_with_the_cure(tmp_path: Path) -> None:
    with RoundLog.create(tmp_path, "run", '[strategy]\nname = "fedavg"\n') as log:
        log.round({"round": 0, "accuracy": 0.1})
    with pytest.raises(ValueError, match="no personal accuracies; make the run with --personalize_steps 5"):
        personal_picture(log.path)
