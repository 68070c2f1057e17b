"""Logs the exchanges of an app that talks to clients itself: one row of the round log for each.

The app's global model is not known: the digest in such a row is the SHA-256 of all messages and replies so far, and the
model that is kept is the last one that was sent to clients for training.
"""

import hashlib
import threading
import time
from functools import partial
from typing import Any

from flwr.app import ArrayRecord, Message, RecordDict
from tqdm import tqdm

from experiments.apps.app_log import AppLog
from fl_sim import RoundFailed, SimulationGrid
from fl_sim.grids.exchange import Exchange
from fl_sim.grids.monitored import clients_of, phase_of
from fl_sim.grids.untrusted_replies.exchange_replies import Expected
from fl_sim.rounds import exchange_events, round_row
from fl_sim.wire import flower, records


class ExchangeLog:
    """Counts and logs the exchanges that an app begins.

    Parameters
    ----------
    log : AppLog
        The round log, which must be open.
    grid : SimulationGrid
        Carries the messages.
    title : str
        Text before the progress bar; empty: there is none.
    """

    def __init__(self, log: AppLog, grid: SimulationGrid, title: str) -> None:
        self.log, self.grid, self.title = log, grid, title
        self.failed: RoundFailed | None = None
        """Why an exchange failed; None where none did."""
        self.trained_model: tuple[ArrayRecord, int] | None = None
        """The last model sent for training, and the round before that."""
        self.exchanged = hashlib.sha256()
        self.threads: set[threading.Thread] = set()
        self.threads_told = False
        self.secrets = False
        self.bar: tqdm[Any] | None = None
        self.start = time.perf_counter()

    def begin(self, messages: list[Message]) -> Exchange:
        """Called before an exchange: start its counts. The first one also shows the initial model, which is logged."""
        self.start = time.perf_counter()
        if not self.log.rows:
            first = _arrays(messages)
            digest = None if first is None else records.digest(first, records.split(first)[0])
            self.log.round({"round": 0, "digest": digest})
        phase, legacy = phase_of(messages), flower.is_legacy(messages)
        expected = Expected(
            "num_examples" if legacy else "num-examples",
            not_finite="null",
            zero_is_failure=False,
            passes_zero=True,
            any_arrays=phase != "train",
            own_facts=False,
        )
        clients = clients_of(self.grid, messages)
        return Exchange(len(self.log.rows), phase, messages, clients, expected=expected, app_owned=True)

    def end(self, exchange: Exchange, good: list[Message], error: RoundFailed | None) -> None:
        """Called after an exchange: log its clients' rows, and its own row if it did not fail."""
        exchange_events.report(partial(self.log.event, round=exchange.server_round), exchange)
        self.log.clients(exchange.rows)
        if error is not None:
            self.failed = self.failed or error
            self.log.event("run_failed", round=exchange.server_round, reason=str(error))
            return
        self._hash(exchange, good)
        arrays = _arrays(exchange.messages)
        if arrays is not None and exchange.phase == "train":
            self.trained_model = arrays, exchange.server_round - 1
        row = {
            "round": exchange.server_round,
            "exchange": exchange.messages[0].metadata.message_type if exchange.messages else None,
            "clients": len(exchange.messages), "completed": exchange.completed,
            "failed": len(exchange.failures), "dropped": len(exchange.unanswered),
            "examples": exchange.sum("examples"), "steps": exchange.sum("steps"),
            "bytes_down": exchange.bytes_down, "bytes_up": exchange.bytes_up,
            "seconds": time.perf_counter() - self.start, "digest": self.exchanged.hexdigest(),
        }  # fmt: skip
        self.log.round({**round_row.of_clients(exchange.phase, _means(exchange.rows)), **row})
        if self.title:
            self.bar = self.bar if self.bar is not None else tqdm(desc=self.title, unit="exchange")
            self.bar.update(1)

    def note_thread(self, server_round: int) -> None:
        """Tell where a second thread of the app sends messages or drives a strategy."""
        self.threads.add(threading.current_thread())
        if len(self.threads) == 2 and not self.threads_told:
            self.threads_told = True
            what = "messages are sent by several threads of the app, whose order may differ from run to run"
            self.log.event("not_repeatable", round=server_round, reason=what)

    def close(self) -> None:
        """Close the progress bar."""
        if self.bar is not None:
            self.bar.close()

    def _hash(self, exchange: Exchange, good: list[Message]) -> None:
        """Add an exchange to the digest, in the order of its messages, and tell where it cannot repeat."""
        self.note_thread(exchange.server_round)
        sent = sorted(exchange.messages, key=lambda m: m.metadata.message_id)
        for message in sent + sorted(good, key=lambda m: m.metadata.reply_to_message_id):
            meta = message.metadata
            self.exchanged.update(f"{meta.src_node_id}>{meta.dst_node_id} {meta.message_type};".encode())
            content, secret = flower.without_secrets(message.content)
            if secret and not self.secrets:
                self.secrets = True
                what = "SecAgg+ encrypts with keys that are new in each run: the digest leaves these records out"
                self.log.event("not_repeatable", round=exchange.server_round, reason=what)
            _hash(self.exchanged, content)


def _arrays(messages: list[Message]) -> ArrayRecord | None:
    """The first ArrayRecord that a message carries; None where none does."""
    return next((record for message in messages for record in message.content.array_records.values()), None)


def _means(rows: list[dict[str, Any]]) -> dict[str, float]:
    """The mean of each number over the clients that completed, weighted by their examples where these are known."""
    done = [row for row in rows if row["status"] == "completed"]
    known = set(done[0]).intersection(*done) - {"round", "client", "examples", "steps"} if done else set()
    weights = [row["examples"] or 1 for row in done]
    numbers = [k for k in sorted(known) if all(isinstance(row[k], (int, float)) for row in done)]
    return {k: sum(w * row[k] for w, row in zip(weights, done, strict=True)) / sum(weights) for k in numbers}


def _hash(sha: "hashlib._Hash", content: RecordDict) -> None:
    """Add the names and values of records to a hash, in the order of their names."""
    for name in sorted(content):
        record = content[name]
        for key in sorted(record):
            value: Any = record[key]
            header = (value.dtype, value.shape) if isinstance(record, ArrayRecord) else value
            sha.update(f"{name}:{key}:{header!r};".encode())
            sha.update(value.data if isinstance(record, ArrayRecord) else b"")
