"""The Flower ClientApp: the same rules in simulation and on a SuperNode. No paper.

``make_app`` binds a learner to an app. ``SimulationGrid`` uses the app's ``learner`` to run whole blocks;
called with one message, the app answers for itself: a block of one on the loop, whose reply is a pool of one.
``app`` is the ClientApp of a device, which makes its learner from what each message says (``clients/device.py``).
"""

from collections.abc import Mapping
from typing import Any

from flwr.app import Context, Message
from flwr.clientapp import ClientApp

from clients import device
from clients.adapt import Personalize
from fl_sim import records, registry, tree
from fl_sim.block import Learner, Settings, plan_blocks
from fl_sim.grid import arrays_of, reply_to
from fl_sim.local import LocalRule
from fl_sim.loss import Loss
from fl_sim.partition import Partition
from fl_sim.worker import run_plan
from strategies.fedavg import FedAvg


class LearnerApp(ClientApp):
    """A ClientApp with the attribute ``learner``."""

    learner: Learner


def rule_for(message_type: str, settings: Settings, own: Mapping[str, type] | None = None) -> LocalRule:
    """The client half that a message names: by its name and numbers; plain local training where it names none.

    ``own`` holds classes that cannot be imported by name (a notebook's). Raises ValueError for an unknown name.
    """
    if message_type.startswith("evaluate"):
        given = {k.removeprefix("personalize."): v for k, v in settings.items() if k.startswith("personalize.")}
        return Personalize(int(given.get("steps", 0)), float(given.get("lr", 0.0)), int(given.get("batch_size", 0)))
    name = settings.get("strategy")
    if name is None:
        return FedAvg()
    found = own[name] if own and name in own else registry.find("strategies", "strategy", name)
    rule: LocalRule = found(**{k.removeprefix("strategy."): v for k, v in settings.items() if k.startswith("strategy.")})
    return rule


def make_app(loss: Loss, partition: Partition, own: Mapping[str, type] | None = None) -> LearnerApp:
    """The ClientApp of a task, a model (both bound in ``loss``) and a partition of the task's training samples."""
    data = {k: v.to(loss.device) for k, v in loss.task.train.items()}
    learner = Learner(loss, data, partition, lambda message_type, settings: rule_for(message_type, settings, own))
    app = LearnerApp()
    app.learner = learner

    def answer(message: Message, context: Context) -> Message:
        client = int(context.node_config["partition-id"])
        settings: dict[str, Any] = records.merged(message.content.config_records.values())
        kind = message.metadata.message_type
        [plan] = plan_blocks(learner, kind, [(0, client, settings)], {}, 1)
        model = tree.to(records.model(arrays_of(message)), loss.dtype, loss.device)
        result = run_plan(plan, model, learner, "loop", 1, None)
        return reply_to(message, result.clients[0], None, "", [], 0)

    app.train()(answer)
    app.evaluate()(answer)
    return app


app = ClientApp(mods=[device.always_answers])
"""A device's: ``[tool.flwr.app.components] clientapp = "clients.app:app"``."""


@app.train()
@app.evaluate()
def _work(message: Message, context: Context) -> Message:
    return device.work(message, context, rule_for)


@app.query()
def _introduce(message: Message, context: Context) -> Message:
    return device.introduce(message, context, rule_for)
