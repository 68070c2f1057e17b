"""The columns of ``rounds.jsonl``: names, units, meanings. ``columns`` has those of the other files."""

from collections.abc import Mapping
from typing import Any, NamedTuple


class Column(NamedTuple):
    """One documented column."""

    unit: str
    """``text``, ``yes/no``, ``table``, or the unit of a number."""
    meaning: str
    """What the column holds, and when it is null."""


def _personal(prefix: str, whom: str) -> dict[str, Column]:
    """The columns of a personal evaluation of the clients described by ``whom``; all null in rounds without one."""
    before, after = "before fine-tuning", "after fine-tuning"
    return {
        f"{prefix}_clients": Column(
            "clients",
            f"{whom}: how many were fine-tuned and tested; null (as all below) in rounds without a personal evaluation",
        ),
        f"{prefix}_accuracy_before": Column(
            "fraction", f"{whom}: accuracy on own held-out samples {before}, mean over clients"
        ),
        f"{prefix}_accuracy": Column("fraction", f"{whom}: the same {after}"),
        f"{prefix}_accuracy_weighted": Column("fraction", f"{whom}: accuracy {after}, weighted by held-out samples"),
        f"{prefix}_accuracy_p10": Column("fraction", f"{whom}: 10th percentile over clients of accuracy {after}"),
        f"{prefix}_accuracy_worst": Column("fraction", f"{whom}: lowest accuracy of a client {after}"),
        f"{prefix}_share_worse": Column(
            "fraction", f"{whom}: share of clients whose accuracy (regression: loss) is worse {after} than before"
        ),
        f"{prefix}_loss_before": Column(
            "per sample", f"{whom}: loss on own held-out samples {before}, mean over clients"
        ),
        f"{prefix}_loss": Column("per sample", f"{whom}: the same {after}"),
    }


OF_STRATEGIES: dict[str, Column] = {
    "edge_bytes_up": Column(
        "bytes",
        "of models that edges sent towards the server in this round, summed over all levels; 0 where no level was "
        "pooled; null for strategies without edges (all but `hierarchical`)",
    ),
    "edge_bytes_down": Column(
        "bytes",
        "of models that edges got from above in this round: each after its level was pooled, and all the first one",
    ),
    "exponent": Column(
        "1", "exponent of the power mean that this round's model was pooled with; null for all but `adaptive`"
    ),
    "val_loss_lower_p": Column(
        "per sample", "of the model pooled with p / sqrt 2 (p: that of the round before) on the validation share"
    ),
    "val_loss_same_p": Column("per sample", "the same with p"),
    "val_loss_higher_p": Column("per sample", "the same with p sqrt 2; of the three models the best is kept"),
}
"""Columns of ``rounds.jsonl`` that single strategies fill (``PoolingStrategy.own_columns``); null for all others."""
MEASURED = ("seconds", "evaluate_seconds", "pool_seconds", "rss_mb", "gpu_mb", "worker", "time")
"""Columns of time, memory and place: two runs of one config may differ in them, and in no other column."""


def repeatable(row: Mapping[str, Any]) -> dict[str, Any]:
    """A row of rounds, clients or events without the columns in which two runs of one config may differ."""
    return {name: value for name, value in row.items() if name not in MEASURED}


VIRTUAL = (
    *("virtual_time", "device_idle", "wasted_examples", "counted_by_speed"),
    *("started", "virtual_seconds", "virtual_down", "virtual_up", "speed_class"),
)
"""Columns of rounds and of clients, and the summary's key, which only simulated devices have."""
ROUNDS: dict[str, Column] = {
    "round": Column(
        "number", "0 is the initial model, 1 the model after the first round; a fork begins with that of its checkpoint"
    ),
    "accuracy": Column(
        "fraction",
        "of the global model on the central test set, the labels that are predicted right divided by all, rounded "
        "once; null where not evaluated, or a regression",
    ),
    "loss": Column("per sample", "of the global model on the central test set; null where not evaluated"),
    "val_accuracy": Column("fraction", "of the global model on the central validation share; null without one"),
    "val_loss": Column("per sample", "of the global model on the central validation share; null without one"),
    "class_accuracy": Column(
        "fractions",
        "with `--set_metrics class_accuracy`: list over the classes, the share of a class's test labels that the "
        "global model predicts right; null for a class without labels",
    ),
    "val_class_accuracy": Column("fractions", "the same on the central validation share; null without one"),
    "train_set_accuracy": Column(
        "fraction",
        "with `--evaluate_train`: of the global model on the training samples of all clients that train, without "
        "held-out samples and unseen clients; null where not evaluated",
    ),
    "train_set_loss": Column("per sample", "the same of the loss: mean over all these samples, by one model"),
    "train_set_class_accuracy": Column("fractions", "the same of `class_accuracy`"),
    "train_loss": Column(
        "per sample",
        "mean over completed clients that report a loss, weighted by examples, of a client's mean loss over its steps: "
        "of models that are being trained, on those clients alone; `train_set_loss` is that of the global model",
    ),
    "lr": Column(
        "1",
        "learning rate of the local steps in this round; null for a strategy that does not use `local.lr` (maml); of a "
        "Flower app the number `lr` in its config",
    ),
    "clients": Column("clients", "chosen to train in this round"),
    "completed": Column(
        "clients", "whose reply was good; one of weight 0 is among them, and counts nothing (event `zero_weight`)"
    ),
    "failed": Column("clients", "that answered with an error, with what is refused, or not at all; never pooled"),
    "dropped": Column(
        "clients",
        "stragglers whose partial work was not used, and clients that virtual time leaves out; of a Flower app calls "
        "that timed out, and messages that no client can answer",
    ),
    "examples": Column("samples", "training samples of the completed clients"),
    "steps": Column("steps", "local optimiser steps of the completed clients, summed"),
    "bytes_down": Column(
        "bytes",
        "of models (without leaves that stay with clients) that a real deployment would send for training: to all that "
        "were chosen, those that fail and dropped stragglers too, but not where a node is not connected",
    ),
    "bytes_down_raw": Column("bytes", "what `bytes_down` would be with whole models; null without `--codec.down`"),
    "bytes_up": Column(
        "bytes",
        "of models (without leaves that stay with clients) in the replies of the completed clients, as a real "
        "deployment would send them: coded, where there is a codec",
    ),
    "bytes_up_raw": Column("bytes", "what `bytes_up` would be without the codec; null where there is none"),
    "train_codec_error": Column(
        "1",
        "what clients' codes have lost so far (their kept error): its norm divided by that of their present update "
        "before coding, mean over completed clients, weighted by examples; null without error feedback "
        "(docs/codecs.md)",
    ),
    "virtual_time": Column(
        "virtual s",
        "from the beginning of the run (of a fork: from its checkpoint) to the end of the round, by the clients' "
        "devices (docs/time.md); null (as device_idle, wasted_examples, counted_by_speed) on real devices, and for an "
        "app of your own",
    ),
    "version": Column(
        "server steps",
        "that the model of this line has had; null (as the next three) where the strategy is not asynchronous",
    ),
    "staleness_mean": Column(
        "server steps", "mean over the replies that this step took: steps between a client's start and this one"
    ),
    "staleness_max": Column("server steps", "the largest of them"),
    "in_flight": Column("clients", "that are at work when this step is taken"),
    "device_idle": Column(
        "fraction",
        "of the time of all devices that were asked, from the round's beginning to its end, in which they wait; of "
        "an asynchronous run of the time of as many as may be in flight since the step before: a client that waits, "
        "or a place for which no device is there; null for a step at the instant of the one before",
    ),
    "wasted_examples": Column(
        "samples",
        "that devices trained on until the end of the round for replies that virtual time leaves out (vanished, too "
        "late; who fails is in `failed`); of an asynchronous run in launches that ended since the step before "
        "(vanished, too late, failed, or of weight 0)",
    ),
    "counted_by_speed": Column(
        "clients", "list over the speed classes of devices, the fastest first: clients whose work is used"
    ),
    "seconds": Column("s", "wall time of the round without evaluation"),
    "pool_seconds": Column(
        "s",
        "wall time of pooling: of adding replies to the blocks' partial pools, summed over workers, of merging these, "
        "and of the server's step; not of waiting for replies",
    ),
    "evaluate_seconds": Column("s", "wall time of this round's evaluations, central and personal"),
    "rss_mb": Column(
        "MB",
        "resident memory of the run's own process at the end of the round, or of a server step up to .1 s before; "
        "null where not Linux",
    ),
    "gpu_mb": Column("MB", "most memory that PyTorch has used of this process's GPU so far; null without one"),
    "padded_share": Column(
        "fraction",
        "of the places in clients' batches, those that only fill up a block; "
        "null on the loop and where runs train as one batch",
    ),
    "update_norm": Column("1", "Euclidean norm of the global model's change in this round"),
    "drift": Column(
        "1",
        "with `--log_drift`: sum n_k abs(d_k)^2 / N - abs(d)^2, of the clients' updates d_k of trained weights, with "
        "their weights n_k in the pool, N = sum n_k and d = sum n_k d_k / N; 0 where all updates are equal",
    ),
    "cosine": Column(
        "1",
        "with `--log_drift`: mean over clients of the cosine between d_k and d; null where no client moved, or d is 0",
    ),
    **OF_STRATEGIES,
    "digest": Column("text", "SHA-256 of the global model: names, types, shapes and bytes; null between digest_every"),
    **_personal("personal", "seen clients"),
    **_personal("unseen", "clients that never train"),
    **_personal("val_unseen", "validation clients (`--validation_clients`), which never train either"),
}
