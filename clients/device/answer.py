"""What a device does with a message: builds its part of the experiment, works, answers. No paper.

The message brings all that is needed: besides the model and the round's settings a ConfigRecord ``experiment`` that names
task, partition and model (what ships here, or ``package.module:Name`` of the app's own code). The device adds what
is its own: ``partition-id``, and perhaps ``data-dir``, ``device``, ``threads``, ``state-dir`` of its node config.
Every message gets an answer: whatever goes wrong here becomes an error reply with its reason.
"""

import os
import platform
import traceback
from collections.abc import Callable, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from flwr.app import ArrayRecord, ConfigRecord, Context, Error, Message, RecordDict

from clients.device.samples import component, own_samples
from clients.device.state import States
from clients.learner import make_learner, make_module
from clients.sources.cache import cache_folder
from fl_sim import tree
from fl_sim.blocks.learner import Learner, Settings
from fl_sim.blocks.plan import plan_blocks
from fl_sim.engines.run_block import run_plan
from fl_sim.grids.messages import CLIENT_ERROR, arrays_of, reply_to
from fl_sim.grids.nodes import EXPERIMENT
from fl_sim.kernels.precision import prepare
from fl_sim.learning.loss import Loss
from fl_sim.learning.rule import LocalRule
from fl_sim.tree import Tree
from fl_sim.wire import records

Answer = Callable[[Message, Context], Message]
Rules = Callable[[str, Settings], LocalRule]


def always_answers(message: Message, context: Context, call_next: Answer) -> Message:
    """A Flower mod: what would leave a message without a proper answer becomes an error reply, whose reason is the traceback.

    ``ClientApp(mods=[always_answers])``. Flower itself never answers for an app that returns None, and its node then
    waits for ever.
    """
    try:
        reply: Any = call_next(message, context)
    except (Exception, SystemExit):
        return Message(Error(CLIENT_ERROR, traceback.format_exc()), reply_to=message)
    if not isinstance(reply, Message):
        return Message(
            Error(CLIENT_ERROR, f"the ClientApp returned {type(reply).__name__}, not a Message"), reply_to=message
        )
    if reply.metadata.reply_to_message_id != message.metadata.message_id:
        reason = (
            "the ClientApp's Message is no reply to the one that it got; make it with Message(..., reply_to=message)"
        )
        return Message(Error(CLIENT_ERROR, reason), reply_to=message)
    return reply


def work(message: Message, context: Context, rules: Rules) -> Message:
    """Answer a message for training or personal evaluation. Raises ValueError for a message or a node config that cannot be worked with."""
    client, said = partition_id(context), experiment_of(message)
    learner = learner_for(said, context.node_config, client, rules)
    settings: dict[str, Any] = records.merged(v for k, v in message.content.config_records.items() if k != EXPERIMENT)
    settings = {"seed": said.get("seed", 0), **{k: tuple(v) if isinstance(v, list) else v for k, v in settings.items()}}
    kind, server_round = message.metadata.message_type, int(settings.get("server-round", 0))
    states = States(_state_root(context), str(said.get("run") or f"run-{context.run_id}"), client)
    accepted = int(said.get("state-round", -1))
    [plan] = plan_blocks(
        learner, kind, [(0, client, settings)], {client: states.load(accepted)} if accepted >= 0 else {}, 1
    )
    result = run_plan(plan, received(arrays_of(message), learner.loss), learner, "loop", 1, None).clients[0]
    reply = reply_to(message, result, None, "", [], 0)
    if result.state and not result.reason and kind.startswith("train"):
        states.save(server_round, result.state)
        reply.content.config_records["facts"]["state-round"] = server_round
    return reply


def introduce(message: Message, context: Context, rules: Rules) -> Message:
    """Answer a ``query``: which client this is, what it runs on, and how many samples it has, if the message says of what."""
    client = partition_id(context)
    packages = {name: version(name) for name in ("flwr", "torch", "numpy")}
    facts: dict[str, Any] = {
        "partition-id": client,
        "python": platform.python_version(),
        "machine": platform.machine(),
        **packages,
    }
    if EXPERIMENT in message.content:
        learner = learner_for(experiment_of(message), context.node_config, client, rules)
        facts["examples"], facts["held-out"] = learner.partition.sizes(client)
    return Message(RecordDict({"node": ConfigRecord(facts)}), reply_to=message)


def partition_id(context: Context) -> int:
    """Which client this device is. Raises ValueError where its node config does not say it."""
    number = context.node_config.get("partition-id")
    if number is None or isinstance(number, bool) or not str(number).isdecimal():
        raise ValueError(
            f"node config: partition-id = {number!r}; start the SuperNode with --node-config 'partition-id=0' (its number)"
        )
    return int(number)


def experiment_of(message: Message) -> dict[str, Any]:
    """What the message says of the experiment. Raises ValueError where it says nothing."""
    if EXPERIMENT not in message.content.config_records:
        raise ValueError(f"the message has no ConfigRecord {EXPERIMENT!r}: it comes from no server of this project")
    return dict(message.content.config_records[EXPERIMENT])


def learner_for(said: Mapping[str, Any], node_config: Mapping[str, Any], client: int, rules: Rules) -> Learner:
    """Task, model and samples of this device, as a simulation has them of this client. Raises ValueError that says what is wrong."""
    device = str(node_config.get("device", "cpu"))
    device = ("cuda" if torch.cuda.is_available() else "cpu") if device == "auto" else device
    prepare(device, int(node_config.get("threads", said.get("threads", 1))), said.get("precision", "full"))
    task, own = own_samples(said, client, str(node_config.get("data-dir", "")))
    model, params = component("model", said)
    module = make_module(model, params, task, int(said.get("seed", 0)), str(said["model"]))
    dtype = torch.float64 if said.get("dtype") == "float64" else torch.float32
    loss = Loss(module, task, dtype, device, said.get("precision", "full"))
    return make_learner(loss, own, rules)


def received(record: ArrayRecord, loss: Loss) -> Tree:
    """The model of a message, ready for the loss: counters that a strategy of Flower's averaged are whole numbers again."""
    model = records.model(record)
    for k, own in loss.training.state_dict().items():
        if not own.is_floating_point() and k in model:
            model[k] = (model[k].round() if model[k].is_floating_point() else model[k]).to(own.dtype)
    return tree.to(model, loss.dtype, loss.device, copy=True)


def _state_root(context: Context) -> Path:
    named = str(context.node_config.get("state-dir", "")) or os.environ.get("FL_SIM_STATE", "")
    return Path(named).expanduser() if named else cache_folder() / "state"
