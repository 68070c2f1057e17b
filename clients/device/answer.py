"""How a device answers a message: it builds its part of the experiment, trains or evaluates, and replies.

Besides the model and the round's settings, a message holds a ConfigRecord ``experiment`` that names task, partition and
model (those of this project, or ``package.module:Name`` of the app's own code). The device adds the settings in its
node config: ``partition-id``, and perhaps ``data-dir``, ``device``, ``threads``, ``state-dir``, ``silo-processes``.
Every message gets an answer: an error on the device becomes an error reply with its reason.
"""

import os
import platform
from collections.abc import Callable, Mapping
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from flwr.app import ConfigRecord, Context, Message, RecordDict

from clients.device.samples import component, own_samples
from clients.device.state import States
from clients.learner import answer, make_learner, make_module, probe
from clients.rules import coding_for
from clients.silo.silo_of_run import in_silo
from clients.silo.silo_options import Silo
from clients.sources.cache import cache_folder
from fl_sim import LocalRule, Loss
from fl_sim.blocks.learner import Learner, Settings
from fl_sim.grids.messages import answered, reply_to, settings_of
from fl_sim.grids.nodes import EXPERIMENT
from fl_sim.kernels.precision import prepare
from fl_sim.learning.sets.class_metrics import offered

Answer = Callable[[Message, Context], Message]
Rules = Callable[[str, Settings], LocalRule]


def always_answers(message: Message, context: Context, call_next: Answer) -> Message:
    """A Flower mod that turns a missing or improper answer into an error reply, whose reason is the traceback.

    ``ClientApp(mods=[always_answers])``. Flower itself never answers for an app that returns None, and its node then
    waits for ever.
    """
    return answered(message, lambda: call_next(message, context))


def work(message: Message, context: Context, rules: Rules) -> Message:
    """Answer a message for training or personal evaluation.

    Raises ValueError for a message or a node config that the device cannot use.
    """
    client, spec = partition_id(context), experiment_of(message)
    learner = learner_for(spec, context.node_config, client, rules)
    settings = settings_of(message, int(spec.get("seed", 0)), skip=EXPERIMENT)
    states = States(_state_root(context), str(spec.get("run") or f"run-{context.run_id}"), client)
    accepted = int(spec.get("state-round", -1))
    try:
        result = answer(learner, message, client, settings, {client: states.load(accepted)} if accepted >= 0 else {})
    finally:
        if learner.silo is not None:
            learner.silo.close()
    reply = reply_to(message, result)
    if result.state and not result.reason and message.metadata.message_type.startswith("train"):
        server_round = int(settings.get("server-round", 0))
        states.save(server_round, result.state)
        reply.content.config_records["facts"]["state-round"] = server_round
    return reply


def introduce(message: Message, context: Context, rules: Rules) -> Message:
    """Answer a ``query``: the client's id and software, and its numbers of samples if an experiment is described."""
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
    """The id of the client that this device is. Raises ValueError where its node config does not name one."""
    number = context.node_config.get("partition-id")
    if number is None or isinstance(number, bool) or not str(number).isdecimal():
        cure = "start the SuperNode with --node-config 'partition-id=0' (its number)"
        raise ValueError(f"node config: partition-id = {number!r}; {cure}")
    return int(number)


def experiment_of(message: Message) -> dict[str, Any]:
    """The experiment that a message describes. Raises ValueError where it describes none."""
    if EXPERIMENT not in message.content.config_records:
        raise ValueError(f"the message has no ConfigRecord {EXPERIMENT!r}: it comes from no server of this project")
    return dict(message.content.config_records[EXPERIMENT])


def learner_for(spec: Mapping[str, Any], node_config: Mapping[str, Any], client: int, rules: Rules) -> Learner:
    """The learner of this device, with the task, model and samples that this client has in a simulation.

    Raises ValueError where the experiment or the node config cannot be used.
    """
    device = str(node_config.get("device", "cpu"))
    device = ("cuda" if torch.cuda.is_available() else "cpu") if device == "auto" else device
    prepare(device, int(node_config.get("threads", spec.get("threads", 1))), spec.get("precision", "full"))
    task, own = own_samples(spec, client, str(node_config.get("data-dir", "")))
    task = replace(task, set_metrics={**task.set_metrics, **offered(str(spec.get("set_metrics", "")))})
    model, params = component("model", spec)
    module = make_module(model, params, task, int(spec.get("seed", 0)), str(spec["model"]))
    dtype = torch.float64 if spec.get("dtype") == "float64" else torch.float32
    loss = Loss(module, task, dtype, device, spec.get("precision", "full"))
    probe(loss, str(spec["model"]), str(spec["task"]))
    learner = replace(make_learner(loss, own, rules, coding_for), keeps_codes=True)
    return in_silo(learner, silo_of(spec, node_config))


def silo_of(spec: Mapping[str, Any], node_config: Mapping[str, Any]) -> Silo:
    """The silo of this device: shards as the experiment says, processes as its node config says (default: 1).

    Raises ValueError where the node config names processes and the experiment has no silo.
    """
    shards, processes = int(spec.get("silo-shards", 0)), int(node_config.get("silo-processes", 0))
    if not shards:
        if processes > 1:
            what = "the experiment has no silo, whose shards all devices share"
            raise ValueError(f"node config: silo-processes = {processes}: {what}; run it with --silo.processes 1")
        return Silo()
    silo = Silo(processes or 1, shards)
    silo.check("loop", 0.0)
    return silo


def _state_root(context: Context) -> Path:
    named = str(context.node_config.get("state-dir", "")) or os.environ.get("FL_SIM_STATE", "")
    return Path(named).expanduser() if named else cache_folder() / "state"
