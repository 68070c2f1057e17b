"""The columns of a round's line in ``rounds.jsonl``: the driver's own, and a strategy's or an app's numbers.

A strategy's and an app's numbers are named so that none hides a documented column.
"""

import re
from collections.abc import Collection, Mapping, Sequence

from fl_sim.blocks.learner import local_settings
from fl_sim.grids.exchange import Exchange
from fl_sim.logs.columns import COLUMNS
from fl_sim.logs.round_columns import OF_STRATEGIES
from fl_sim.rounds.measured.round_work import RoundWork
from fl_sim.wire.set_records import from_record

PREFIXES = {"train": "train", "evaluate": "eval", "query": "query"}
"""Phase -> the prefix of its columns; a number whose name begins with it keeps the name."""
CENTRAL = tuple(
    f"{part}{name}" for name in ("accuracy", "loss", "class_accuracy") for part in ("", "val_", "train_set_")
)
"""Documented columns that central evaluation fills."""
PERSONAL = ("personal_", "unseen_", "val_unseen_")
"""Beginnings of the documented columns that personal evaluation fills."""
OF_CLIENTS = ("train_loss", "train_codec_error")
"""Documented columns that clients' numbers fill."""
SYNONYM = re.compile(
    r"(?:(?:test|eval|evaluate|evaluation|central|centrali[sz]ed|server|global)[_-])*(accuracy|acc|loss)", re.IGNORECASE
)


def of_training(
    exchange: Exchange, config: Mapping[str, object], dropped: Sequence[int], work: RoundWork
) -> dict[str, object]:
    """The columns of a round's training.

    Parameters
    ----------
    exchange : Exchange
        Of the training messages, complete.
    config : Mapping
        The settings that messages for training carry.
    dropped : Sequence of int
        Ids of stragglers whose partial work was not used. They get no message here; in a deployment they would be sent
        the model as all others are, before they turn out to be slow.
    work : RoundWork
        What the round's blocks add up to.
    """
    down, down_raw = exchange.bytes_down_with(dropped)
    return {
        "round": exchange.server_round,
        "lr": learning_rate(config, exchange.server_round),
        "clients": len(exchange.messages) + len(dropped),
        "completed": exchange.completed,
        "failed": len(exchange.failures),
        "dropped": len(dropped) + len(exchange.unanswered),
        "examples": exchange.sum("examples"),
        "steps": exchange.sum("steps"),
        "bytes_down": down,
        **({} if exchange.sent_bytes is None else {"bytes_down_raw": down_raw}),
        "bytes_up": exchange.bytes_up,
        **({} if exchange.bytes_up_raw is None else {"bytes_up_raw": exchange.bytes_up_raw}),
        "padded_share": 1 - work.samples / work.places if work.places else None,
        **work.columns(),
        "update_norm": 0.0,
    }


def dropped_client(server_round: int, client: int) -> dict[str, object]:
    """The row in ``clients.jsonl`` of a straggler whose partial work was not used."""
    return {"round": server_round, "client": client, "phase": "train", "status": "dropped"}


def of_clients(phase: str, metrics: Mapping[str, object], own: Collection[str] = ()) -> dict[str, object]:
    """Aggregated numbers of clients, named by phase: ``loss`` of training becomes ``train_loss``.

    A name that begins with the phase's prefix is kept (``eval_acc``). Where the result would be a documented column
    other than those of ``OF_CLIENTS``, ``client_`` comes before it.

    ``own`` : names that are columns as they are (``PoolingStrategy.own_columns``), unless the driver fills that column.
    """
    kept = {k: v for k, v in metrics.items() if k in own and (k in OF_STRATEGIES or k not in COLUMNS["rounds"])}
    prefix = PREFIXES.get(phase, phase)
    rest = {k: v for k, v in metrics.items() if k not in kept}
    named = {k if k.lower().startswith(prefix) else f"{phase}_{k}": v for k, v in rest.items()}
    return {f"client_{k}" if k in COLUMNS["rounds"] and k not in OF_CLIENTS else k: v for k, v in named.items()} | kept


def of_evaluation(metrics: Mapping[str, object]) -> dict[str, object]:
    """Numbers of an evaluation on clients: this project's personal evaluation as it is, others as ``of_clients``."""
    personal = {k: v for k, v in metrics.items() if k.startswith(PERSONAL)}
    return personal | of_clients("evaluate", {k: v for k, v in metrics.items() if k not in personal})


def of_central(metrics: Mapping[str, object]) -> dict[str, object]:
    """Numbers of central evaluation under their own names, or as ``central_NAME`` where NAME is a documented column.

    ``accuracy`` and ``loss`` are also filled from a synonym (``test_accuracy``, ``eval_acc``, ``centralized_loss``),
    where there is only one. An accuracy in percent is not used, because the column is a fraction.
    """
    entries = from_record(metrics).items()
    named = {f"central_{k}" if k in COLUMNS["rounds"] and k not in CENTRAL else k: v for k, v in entries}
    for target in ("accuracy", "loss"):
        same = [
            v for k, v in metrics.items() if (match := SYNONYM.fullmatch(k)) and target.startswith(match[1].lower())
        ]
        only = same[0] if len(same) == 1 and isinstance(same[0], (int, float)) else None
        if target not in named and only is not None and (target == "loss" or 0 <= only <= 1):
            named[target] = only
    return named


def learning_rate(config: Mapping[str, object], server_round: int) -> float | None:
    """The clients' learning rate in this round: ``local.lr`` by its schedule, or what an app calls ``lr``."""
    if "local.lr" in config:
        return local_settings(config, server_round).lr
    rate = config.get("lr")
    return float(rate) if isinstance(rate, (int, float)) else None
