"""A block of malicious clients: the samples that they train on, and what they send instead of their replies.

Legend: C clients of an outcome.
"""

from collections.abc import Sequence
from dataclasses import replace

import torch

from fl_sim import tree
from fl_sim.blocks.attack import Attack
from fl_sim.blocks.learner import Learner
from fl_sim.blocks.resolve import Job
from fl_sim.kernels.cuda_graphs import GraphRecorder
from fl_sim.learning.rule import LocalRule
from fl_sim.tree import Tree


class NoGraphs(GraphRecorder):
    """Records nothing: a CUDA graph of an honest block would read the honest samples again."""

    @staticmethod
    def supports(device: torch.device) -> bool:
        """No device's."""
        return False


def learner_of(learner: Learner, attack: Attack) -> Learner:
    """The learner of malicious clients: the same one, unless they train on other samples."""
    samples = attack.samples(learner.data, learner.loss.task)
    return learner if samples is learner.data else replace(learner, data=samples, recorder=NoGraphs())


def sent(
    replies: Tree, jobs: Sequence[Job], model: Tree, rule: LocalRule, names: Sequence[str], attack: Attack
) -> Tree:
    """Stacked replies (C, ...) as malicious clients send them; ``names``: the leaves that are trained and travel."""
    if type(attack).update is Attack.update:  # w + (w_k - w) may have other bits than w_k
        return replies
    rows = []
    for c, job in enumerate(jobs):
        own = {k: replies[k][c] for k in names}
        rows.append(attacked(own, model, rule, attack.update(update_of(own, model, rule), job.draw)))
    return {**replies, **tree.stack(rows)}


def update_of(reply: Tree, model: Tree, rule: LocalRule) -> Tree:
    """The update in the leaves of a client's reply: its difference from the model, where it replies with a model."""
    if rule.reply_kind != "weights":
        return reply
    return {k: x - model[k].to(x.device) for k, x in reply.items()}


def attacked(reply: Tree, model: Tree, rule: LocalRule, update: Tree) -> Tree:
    """The reply that has ``update`` in its leaves instead of the client's own, with the dtypes of ``reply``."""
    if rule.reply_kind != "weights":
        return {**reply, **{k: x.to(reply[k].dtype) for k, x in update.items()}}
    return {**reply, **{k: model[k].to(x.device) + x.to(reply[k].dtype) for k, x in update.items()}}
