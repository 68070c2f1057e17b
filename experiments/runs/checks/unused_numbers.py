"""Numbers of a run that a user's own strategy does not use: they are tried on it before the run, and refused.

The strategies of this project name what they do not use in ``refuses``.
"""

import copy
from typing import Any

import torch
from flwr.app import ConfigRecord, Message

from experiments.config.choices import offered
from experiments.runs.setup import Setup
from fl_sim import tree
from fl_sim.engines.results import ClientResult
from fl_sim.errors import ConfigError
from fl_sim.grids.messages import reply_to
from fl_sim.local import Draw, Sizes
from fl_sim.tree import Tree
from fl_sim.wire import flower, records
from strategies.base.strategy import Strategy

MOVES, EXAMPLES = (0.1, -0.3, 0.7), (1, 3, 2)
"""What the three clients of a trial add to each weight, and their numbers of samples."""
ROUNDS = (1, 2, 3, 10, 100)
"""The rounds that are tried: a strategy may use a number in some rounds, or for some clients, alone."""


def check_numbers(setup: Setup) -> None:
    """Raise ConfigError for ``server.lr``, ``weighting`` or ``system.stragglers`` that the strategy does not use.

    A strategy whose hooks fail in the trial is left to the run.
    """
    config, strategy = setup.config, setup.strategy
    if not isinstance(strategy, Strategy):
        return
    if config.system.stragglers and (why := no_partial_work(setup, strategy)):
        raise ConfigError(f"system.stragglers = {config.system.stragglers}: does nothing here: {why}; leave it out")
    if type(strategy) in offered("strategy").values():
        return
    weighting = {"examples": "uniform", "uniform": "examples"}
    changes: dict[str, tuple[object, dict[str, Any]]] = {
        "server.lr": (config.server.lr != 1 and config.server.lr, {"server_lr": 1.0}),
        "weighting": (config.weighting, {"weighting": weighting[strategy.weighting]}),
        "system.stragglers": (config.system.stragglers, {"stragglers": 0.0}),
    }
    for key, (value, other) in changes.items():
        if value and (now := _tried(setup)) is not None and now == _tried(setup, **other):
            why = f"strategy {config.strategy.name} does not use it, as trials of rounds show"
            raise ConfigError(f"{key} = {value!r}: does nothing here: {why}; leave it out")


def no_partial_work(setup: Setup, strategy: Strategy) -> str:
    """Why a straggler, whose partial work is kept, cannot do less than the others; "" where it can."""
    largest, held_out, _ = max(setup.partition.size_counts().tolist())
    if strategy.partial_work == "drop" or not largest:
        return ""
    try:
        streams = strategy.streams(Sizes(largest, held_out), setup.config.local, Draw(setup.config.seed, 1, 0))
    except Exception:  # the run reports it
        return ""
    if "train" not in streams:
        return f"strategy {setup.config.strategy.name} has no stream of batches 'train', which would be cut short"
    return "" if len(streams["train"]) > 1 else "each client takes one step a round, and that is kept"


def _tried(setup: Setup, stragglers: float | None = None, **numbers: Any) -> object:
    """The work that rounds ask for and the models that they give, with these numbers; None where one fails."""
    train = dict(setup.train_config) if stragglers is None else {**setup.train_config, "system.stragglers": stragglers}
    found = []
    for server_round in ROUNDS:
        try:
            found.append(_round(setup, server_round, train, numbers))
        except Exception:  # the run reports it, if it fails there too
            return None
    return found


def _round(setup: Setup, server_round: int, train: dict[str, Any], numbers: dict[str, Any]) -> object:
    """The work that one round asks for, and the model that it gives."""
    strategy: Strategy = copy.deepcopy(setup.strategy)  # type: ignore[assignment]  # check_numbers asked
    vars(strategy).update({"statistics": setup.loss.buffers, **numbers})
    with flower.keyed_hook(setup.config.seed, "trial", server_round):
        sent = list(strategy.configure_train(server_round, setup.initial, ConfigRecord(train), setup.grid))
        asked = [(m.metadata.dst_node_id, _settings(m).get("system.work")) for m in sent]
        if len(sent) < len(MOVES):
            return asked, strategy.server_lr, strategy.weighting
        arrays, _ = strategy.aggregate_train(server_round, _replies(setup, strategy, sent[: len(MOVES)]))
    return asked, tree.digest(records.decode(arrays)) if arrays is not None else ""


def _settings(message: Message) -> dict[str, Any]:
    """The settings in a message."""
    return records.merged(message.content.config_records.values())


def _replies(setup: Setup, strategy: Strategy, sent: list[Message]) -> list[Message]:
    """Replies of three clients whose models differ, pooled as those of a block."""
    model, update = records.decode(setup.initial), strategy.reply_kind == "update"
    floats = setup.loss.trainable if update else [k for k, x in model.items() if x.is_floating_point()]
    names = [k for k in floats if k not in strategy.at_home]
    moves: list[Tree] = [{k: torch.full_like(model[k], move) for k in names} for move in MOVES]
    replies = moves if update else [tree.add(model, move) for move in moves]
    weighting = _settings(sent[0]).get("weighting", "examples")
    weights = [float(n) if weighting == "examples" else 1.0 for n in EXAMPLES]
    pool = strategy.reply_pool
    stacked = tree.stack(replies)
    partial = pool.add(pool.start(replies[0]), stacked, torch.tensor(weights, dtype=torch.float64))
    for number, message in enumerate(sent):
        flower.set_message_id(message, f"trial-{number}")
    ids = [message.metadata.message_id for message in sent]
    results = [
        ClientResult(n, n, EXAMPLES[n], 1, weights[n], {"loss": 1.0}, num_bytes=tree.num_bytes(replies[n]))
        for n in range(len(sent))
    ]
    return [
        reply_to(message, results[n], None if n else partial, ids[0], None if n else ids, 0)
        for n, message in enumerate(sent)
    ]
