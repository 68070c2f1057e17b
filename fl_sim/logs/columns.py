"""The files and columns of a round log: names, units, meanings.

The tables below are the only list of these names: the writer fills in the columns, and a test compares ``docs/logs.md``
with the tables. A user's metrics and callbacks may add columns under any name that is not listed here.
"""

from collections.abc import Iterable
from typing import NamedTuple

from fl_sim.errors import ConfigError

CONFIG = "config.toml"
"""File with the run's complete configuration."""
MODEL = "model.safetensors"
"""File with the last global model that was saved."""
NAMES = "names.json"
"""File with the user's own names of classes and clients, where these are no plain numbers 0, 1, 2 ..."""
SUMMARY = "summary.json"
"""File with the outcome of the run."""


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
}
"""Columns of ``rounds.jsonl`` that single strategies fill (``PoolingStrategy.own_columns``); null for all others."""
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
        "stragglers whose partial work was not used; of a Flower app calls that timed out, and messages that no client "
        "can answer",
    ),
    "examples": Column("samples", "training samples of the completed clients"),
    "steps": Column("steps", "local optimiser steps of the completed clients, summed"),
    "bytes_down": Column(
        "bytes",
        "of models (without leaves that stay with clients) that a real deployment would send for training: to all that "
        "were chosen, those that fail and dropped stragglers too, but not where a node is not connected",
    ),
    "bytes_up": Column(
        "bytes",
        "of models (without leaves that stay with clients) in the replies of the completed clients, as a real "
        "deployment would send them",
    ),
    "seconds": Column("s", "wall time of the round without evaluation"),
    "evaluate_seconds": Column("s", "wall time of this round's evaluations, central and personal"),
    "padded_share": Column(
        "fraction",
        "of the places in clients' batches, those that only fill up a block; "
        "null on the loop and where runs train as one batch",
    ),
    "update_norm": Column("1", "Euclidean norm of the global model's change in this round"),
    **OF_STRATEGIES,
    "digest": Column("text", "SHA-256 of the global model: names, types, shapes and bytes; null between digest_every"),
    **_personal("personal", "seen clients"),
    **_personal("unseen", "clients that never train"),
}


CLIENTS: dict[str, Column] = {
    "round": Column("number", "the round"),
    "client": Column("number", "partition id"),
    "phase": Column(
        "text",
        "train; personal (an evaluation on the client, after fine-tuning); of Flower apps also evaluate, query, "
        "get_parameters",
    ),
    "status": Column("text", "completed, failed or dropped"),
    "examples": Column("samples", "training samples of the client"),
    "steps": Column("steps", "local optimiser steps it took; personal: of fine-tuning"),
    "loss": Column(
        "per sample",
        "train: mean over its local steps (maml: of the adapted model on its query batch); personal: on its held-out "
        "samples after fine-tuning",
    ),
    "update_norm": Column(
        "1", "train: Euclidean norm of its model's change (of its gradient, where a strategy replies with one)"
    ),
    "weight": Column(
        "1", "train: weight in the pool, not normalised; personal: its training samples, by which no mean weighs"
    ),
    "block": Column("number", "which block of this round's training, or of its personal evaluation, computed it"),
    "attacked": Column(
        "yes/no", "train, with `--attack`: true for a malicious client whose reply was good; null for all others"
    ),
    "reason": Column("text", "of a failure, and of a dropped message of a Flower app; null otherwise"),
    "unseen": Column("yes/no", "personal: whether the client never trains"),
    "accuracy_before": Column("fraction", "personal: on its held-out samples before fine-tuning"),
    "accuracy": Column("fraction", "personal: on its held-out samples after fine-tuning"),
    "loss_before": Column("per sample", "personal: on its held-out samples before fine-tuning"),
    "held_out": Column("samples", "personal: its held-out samples"),
    "class_accuracy_before": Column(
        "fractions", "personal, with `--set_metrics class_accuracy`: list over the classes, before fine-tuning"
    ),
    "class_accuracy": Column("fractions", "personal: the same after fine-tuning; null for a class without labels"),
    "client_name": Column("text", "the user's own name of the client; `load` takes it from `names.json`"),
}


EVENTS: dict[str, Column] = {
    "time": Column("s", "wall clock, since 1970-01-01 UTC"),
    "event": Column("text", "what happened; further columns are its facts"),
    "round": Column("number", "in which it happened; null outside of rounds"),
    "reason": Column(
        "text",
        "why it happened; null for start, resumed, plan, samples, fallback, out_of_memory, worker_started and "
        "node_found, which have other facts",
    ),
    "block": Column(
        "number",
        "of fallback, out_of_memory, client_timeout, client_died; "
        "of worker_lost the one that runs again, null in an evaluation",
    ),
    "worker": Column(
        "number",
        "of worker_started (before its first work for this run), worker_lost, client_timeout: which of Ray's workers",
    ),
    "node": Column(
        "text", "that worker's machine: its address, and Ray's id of the node; of node_found Flower's node id"
    ),
    "device": Column("text", "of worker_started: its kind of CPU or GPU"),
    "attempt": Column("number", "of worker_lost: how many workers were lost over the block so far"),
}


SUMMARY_KEYS: dict[str, Column] = {
    "status": Column("text", "completed, failed or stopped (by `--stop.*`, `--time_limit`, a callback or the user)"),
    "digest": Column("text", "SHA-256 of the final global model"),
    "rounds": Column("rounds", "done"),
    "accuracy": Column(
        "fraction", "of the final model on the central test set; null for a regression, and where it was not evaluated"
    ),
    "loss": Column("per sample", "of the final model on the central test set"),
    "val_accuracy": Column("fraction", "of the final model on the central validation share; null without one"),
    "train_set_accuracy": Column(
        "fraction", "of the final model on all training samples; null without `--evaluate_train`"
    ),
    "train_set_loss": Column("per sample", "the same of the loss"),
    "personal_accuracy_before": Column(
        "fraction", "of the final model, as the four that follow; null without a personal evaluation of it"
    ),
    "personal_accuracy": Column("fraction", "seen clients: after fine-tuning"),
    "personal_loss": Column("per sample", "seen clients: after fine-tuning"),
    "unseen_accuracy": Column("fraction", "clients that never train: after fine-tuning"),
    "unseen_loss": Column("per sample", "clients that never train: after fine-tuning"),
    "rounds_to_target": Column(
        "rounds",
        "first round that was evaluated and reaches the target accuracy (`--target`), of a fork among the rounds in "
        "its own log; null without a target, or if never",
    ),
    "seconds": Column("s", "wall time of the whole run, evaluation included; of a resumed one in all its processes"),
    "bytes_down": Column("bytes", "sum over rounds"),
    "bytes_up": Column("bytes", "sum over rounds"),
    "clients_failed": Column("clients", "sum over rounds"),
    "moved": Column("samples", "that the partition moved so that no client is too small"),
    "filled": Column("clients", "that were too small, and got these samples"),
    "stopped": Column("text", "why the run ended before its last round; null if it did not"),
    "error": Column("text", "why the run failed; null otherwise"),
    "run_dir": Column("text", "the run's folder"),
    "app": Column("text", "folder of the Flower app, in runs of --app; the nouns below are then null or the app's own"),
    "strategy": Column("text", "name"),
    "task": Column("text", "name"),
    "model": Column("text", "name"),
    "partition": Column("text", "name"),
    "seed": Column("number", "of every draw but the partition's"),
    "engine": Column("text", "that computed the blocks"),
    "workers": Column(
        "table", "of engine ray: how many, their idle share, retries (`docs/cluster.md`); empty otherwise"
    ),
    "not_finite": Column(
        "text",
        "columns of rounds whose number was NaN or infinite in an evaluation, and is null there, such as `loss, "
        "val_loss` (event `not_finite`); null where there were none",
    ),
    "model_notes": Column(
        "text", "what the run does with a network that its user may not expect (events `model`); null where nothing"
    ),
    "bits_changed": Column(
        "yes/no",
        "whether an inner chunk was halved after running out of memory, a client hung, or an app's timeout fired",
    ),
    "versions": Column("table", "of Python and the libraries, by name"),
}


COLUMNS: dict[str, dict[str, Column]] = {
    "rounds": ROUNDS,
    "clients": CLIENTS,
    "events": EVENTS,
    "summary": SUMMARY_KEYS,
}
"""The documented names by file: columns of ``rounds``, ``clients`` and ``events``, keys of ``summary``."""


def check_own(names: Iterable[str], table: str = "rounds") -> None:
    """Raise ConfigError if a user's metric or column has the name of a documented column of ``table``."""
    for name in names:
        if name in COLUMNS[table]:
            meaning = COLUMNS[table][name].meaning
            raise ConfigError(
                f"metric {name!r}: {table}.jsonl has a column of this name already ({meaning}); choose another name"
            )
