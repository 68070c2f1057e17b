"""The fields of ``summary.json``."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from experiments.runs.checks.queries import queries_of
from experiments.runs.records.package_versions import versions
from experiments.runs.setup import Setup
from fl_sim.logs.kept.best_models import best_row
from fl_sim.logs.reader import not_finite

Summary = dict[str, Any]
"""The fields of summary.json, by name."""


LAST = (
    *("val_accuracy", "train_set_accuracy", "train_set_loss"),
    *("personal_accuracy", "personal_accuracy_before", "personal_loss"),
    *("unseen_accuracy", "unseen_loss", "val_unseen_accuracy", "val_unseen_loss"),
)
"""Columns of rounds whose number of the final model is in the summary under the same name."""


def of_final_model(rows: Sequence[Mapping[str, Any]], digest: str | None = None) -> Summary:
    """The columns of the last row, with the evaluations of the same model in earlier rows, where it is the same.

    Numbers of another round's model are not among them, so that no summary pairs them with the final digest. ``digest``
    : that of the final model; default: the last row's.
    """
    last: Summary = {}
    for row in rows:
        final = digest or rows[-1].get("digest")
        if row.get("digest") == final and (final is not None or row is rows[-1]):
            last |= {k: v for k, v in row.items() if v is not None}
    return last


def best_of(rows: Sequence[Mapping[str, Any]]) -> Summary:
    """The round that is best by the validation samples, and that model's numbers on the test set."""
    row = best_row(rows) or {}
    return {f"best_{k}": row.get(k) for k in ("round", "val_accuracy", "accuracy", "loss")}


def mean_staleness(rows: Sequence[Mapping[str, Any]]) -> float | None:
    """The mean staleness of all replies that an asynchronous run applied; None in other runs."""
    steps = [(r["completed"], r["staleness_mean"]) for r in rows if r.get("staleness_mean") is not None]
    return sum(n * late for n, late in steps) / sum(n for n, _ in steps) if steps else None


def summarise(
    setup: Setup, rows: Sequence[dict[str, Any]], error: BaseException | None, stopped: str, seconds: float, path: Path
) -> Summary:
    """The fields of summary.json, which docs/logs.md explains.

    Parameters
    ----------
    setup : Setup
        The parts of the run.
    rows : sequence of dict
        The rows of the round log; accuracies and losses are those of the final model.
    error : BaseException or None
        Why the run failed.
    stopped : str
        Why the run ended early; empty if it did not.
    seconds : float
        Wall time of the run, in seconds.
    path : Path
        The run folder.
    """
    config = setup.config
    last = of_final_model(rows)
    reached = [r["round"] for r in rows if config.target is not None and (r.get("accuracy") or 0.0) >= config.target]
    return {
        "digest": rows[-1].get("digest") if rows else None,
        "status": "stopped" if stopped else "failed" if error is not None else "completed",
        "rounds": rows[-1]["round"] if rows else 0,
        "accuracy": last.get("accuracy"),
        "loss": last.get("loss"),
        "virtual_time": rows[-1].get("virtual_time") if rows else None,
        "staleness": mean_staleness(rows),
        "seconds": seconds,
        "run_dir": str(path),
        **{noun: getattr(config, noun).name for noun in ("strategy", "task", "model", "partition")},
        "seed": config.seed,
        "engine": "ray" if config.engine == "ray" else setup.engine.name,
        **{k: last.get(k) for k in LAST},
        "personal_queries": queries_of(setup),
        "rounds_to_target": min(reached, default=None),
        **best_of(rows if config.keep_best else ()),
        "bytes_up": sum(r.get("bytes_up") or 0 for r in rows),
        "bytes_down": sum(r.get("bytes_down") or 0 for r in rows),
        "clients_failed": sum(r.get("failed") or 0 for r in rows),
        "moved": setup.partition.moved,
        "filled": setup.partition.filled,
        "not_finite": not_finite(path),
        "model_notes": "; ".join(setup.notes) or None,
        "bits_changed": bool(setup.grid.reduced_chunk) or setup.grid.bits_changed,
        "workers": dict(setup.grid.worker_summary()),
        "stopped": stopped or None,
        "error": None if error is None or stopped else f"{type(error).__name__}: {error}",
        "versions": versions(),
    }
