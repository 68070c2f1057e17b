"""The Flower ClientApp: the same rules in simulation and on a SuperNode. No paper.

``make_app`` binds a learner to an app. ``SimulationGrid`` uses the app's ``learner`` to run whole blocks;
called with one message, the app answers for itself: a block of one on the loop, whose reply is a pool of one.
``app`` is the ClientApp of a device, which makes its learner from what each message says (``clients/device/answer.py``).
"""

from collections.abc import Mapping
from typing import Any

from flwr.app import Context, Message
from flwr.clientapp import ClientApp

from clients.device import answer as device
from clients.learner import make_learner
from clients.rules import rule_for
from fl_sim import tree
from fl_sim.blocks.learner import Learner
from fl_sim.blocks.plan import plan_blocks
from fl_sim.engines.run_block import run_plan
from fl_sim.grids.messages import arrays_of, reply_to
from fl_sim.learning.loss import Loss
from fl_sim.population.partition import Partition
from fl_sim.wire import records


class LearnerApp(ClientApp):
    """A ClientApp with the attribute ``learner``."""

    learner: Learner


def make_app(loss: Loss, partition: Partition, own: Mapping[str, type] | None = None) -> LearnerApp:
    """The ClientApp of a task, a model (both bound in ``loss``) and a partition of the task's training samples."""
    learner = make_learner(loss, partition, lambda message_type, settings: rule_for(message_type, settings, own))
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
