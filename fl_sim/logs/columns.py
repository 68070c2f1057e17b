"""The files and columns of a round log: names, units, meanings.

The tables below are the only list of these names: the writer fills in the columns, and a test compares ``docs/logs.md``
with the tables. A user's metrics and callbacks may add columns under any name that is not listed here.
"""

from collections.abc import Iterable

from fl_sim.errors import ConfigError
from fl_sim.logs.round_columns import ROUNDS, Column

A_RUN = "name the folder that a run made, NAME-DATE-TIME in its --out (default: runs)"
"""What to do where a folder is that of no run."""
CONFIG = "config.toml"
"""File with the run's complete configuration."""
MODEL = "model.safetensors"
"""File with the last global model that was saved."""
NAMES = "names.json"
"""File with the user's own names of classes and clients, where these are no plain numbers 0, 1, 2 ..."""
SUMMARY = "summary.json"
"""File with the outcome of the run."""
SCHEMA = 2
"""Version of the files and columns below, in the event ``start``. Runs without it are of version 1: without
``pool_seconds``, ``rss_mb``, ``gpu_mb``, the clients' ``worker`` and ``seconds``, and ``partition.json``."""


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
    "worker": Column("number", "train: which of Ray's workers computed it; null in other engines"),
    "seconds": Column(
        "s",
        "train: wall time of its local training; of clients that trained as one batch (vmap) an equal share of "
        "theirs; null on real devices, and where several runs trained together",
    ),
    "attacked": Column(
        "yes/no", "train, with `--attack`: true for a malicious client whose reply was good; null for all others"
    ),
    "started": Column(
        "virtual s",
        "train: when the message was sent, since the run's beginning; missing: at the end of the round before",
    ),
    "virtual_seconds": Column(
        "virtual s",
        "train: from the message to the reply, by its device, or until it vanished; also where its work is not used",
    ),
    "virtual_down": Column(
        "virtual s",
        "train: the part of them until the model was there (latency and download); missing: no time (also below)",
    ),
    "virtual_up": Column("virtual s", "train: the part of them from the last step on (upload and latency)"),
    "speed_class": Column("number", "train: of its device, 0 for the fastest"),
    "staleness": Column(
        "server steps",
        "train, of an asynchronous strategy: between its start and the step that took its reply; null otherwise",
    ),
    "reason": Column(
        "text",
        "of a failure, of a client whose work comes too late or is not needed (virtual time), and of a dropped message "
        "of a Flower app; null otherwise",
    ),
    "unseen": Column("yes/no", "personal: whether the client never trains; null for validation clients"),
    "validation": Column(
        "yes/no", "personal, with `--validation_clients`: whether it is one of these; null without them"
    ),
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
    "val_unseen_accuracy": Column("fraction", "validation clients: after fine-tuning; null without them"),
    "val_unseen_loss": Column("per sample", "validation clients: after fine-tuning; null without them"),
    "rounds_to_target": Column(
        "rounds",
        "first round that was evaluated and reaches the target accuracy (`--target`), of a fork among the rounds in "
        "its own log; null without a target, or if never",
    ),
    "best_round": Column(
        "number",
        "with `--keep_best`: the round whose model has the best `val_accuracy` (else `val_loss`), the first; "
        "with `--validation_clients` by `val_unseen_accuracy`",
    ),
    "best_val_accuracy": Column("fraction", "of that model on the central validation share"),
    "best_accuracy": Column("fraction", "of that model on the central test set, by which nothing was chosen"),
    "best_loss": Column("per sample", "of that model on the central test set"),
    "virtual_time": Column("virtual s", "at the end of the last round; null on real devices, and for a Flower app"),
    "staleness": Column(
        "server steps", "mean over all replies that an asynchronous run applied; null in other runs, and for apps"
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
        "table",
        "of engine ray: how many, their idle share, retries (`docs/cluster.md`); of a silo of several processes their "
        "restarts, moves, shares and bytes (`docs/silo.md`); empty otherwise",
    ),
    "not_finite": Column(
        "text",
        "columns of rounds whose number was NaN or infinite in an evaluation, and is null there, such as `loss, "
        "val_loss` (event `not_finite`); null where there were none",
    ),
    "personal_queries": Column(
        "text",
        "of a network that normalises by the batch in evaluation (`conv4`): together: `personal_*` and `unseen_*` are "
        "of each client's held-out samples all at once (transductive); alone: of each with the client's training part "
        "(`--personalize_queries`); null of other networks, and without personal evaluation",
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
