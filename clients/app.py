"""The Flower ClientApp: the same local rules in simulation and on a SuperNode.

``make_app`` binds a learner to an app. ``SimulationGrid`` uses the app's ``learner`` to run whole blocks. An app that
is called with one message trains that client alone: a block of one client on the loop engine, whose reply is a pool of
one client. ``app`` is the ClientApp of a device, which builds its learner from the experiment that each message
describes (``clients/device/answer.py``).
"""

from collections.abc import Mapping
from dataclasses import replace

from flwr.app import Context, Message
from flwr.clientapp import ClientApp

from clients.device.answer import always_answers, introduce, work
from clients.learner import answer, make_learner
from clients.rules import coding_for, rule_for
from clients.silo.silo_of_run import in_silo
from clients.silo.silo_options import NO_SILO, Silo
from fl_sim import Loss, Partition
from fl_sim.blocks.learner import Learner
from fl_sim.grids.messages import reply_to, settings_of


class LearnerApp(ClientApp):
    """A ClientApp with the attribute ``learner``."""

    learner: Learner


def make_app(
    loss: Loss,
    partition: Partition,
    own: Mapping[str, type] | None = None,
    silo: Silo = NO_SILO,
    log_drift: bool = False,
) -> LearnerApp:
    """The ClientApp of a task, a model (both bound in ``loss``) and a partition of the task's training samples.

    ``own`` : classes of strategies and codecs by name, for names that cannot be imported, such as those of a notebook.
    ``silo`` : the processes of each client's training; default: none of its own.
    ``log_drift`` : whether blocks add up their clients' updates (``Learner.log_drift``).
    """
    learner = make_learner(
        loss,
        partition,
        lambda message_type, settings: rule_for(message_type, settings, own),
        lambda settings: coding_for(settings, own),
    )
    learner = in_silo(replace(learner, log_drift=log_drift), silo)
    app = LearnerApp()
    app.learner = learner

    def reply(message: Message, context: Context) -> Message:
        client = int(context.node_config["partition-id"])
        return reply_to(message, answer(learner, message, client, settings_of(message, 0), {}))

    app.train()(reply)
    app.evaluate()(reply)
    return app


app = ClientApp(mods=[always_answers])
"""The ClientApp of a device: ``[tool.flwr.app.components] clientapp = "clients.app:app"``."""


@app.train()
@app.evaluate()
def _work(message: Message, context: Context) -> Message:
    return work(message, context, rule_for)


@app.query()
def _introduce(message: Message, context: Context) -> Message:
    return introduce(message, context, rule_for)
