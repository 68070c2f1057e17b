"""Replies as their clients code them and the server reads them: between the rule and the checks of a block.

Legend: C clients of an outcome.
"""

import math
import traceback
from collections.abc import Mapping
from dataclasses import dataclass, field

import torch

from fl_sim import rng, tree
from fl_sim.blocks.learner import Learner, Settings
from fl_sim.blocks.resolve import Block, Job
from fl_sim.engines.malicious import attacked, update_of
from fl_sim.engines.outcome import Outcome
from fl_sim.engines.reply_checks import shape_problem
from fl_sim.learning.loss import Loss
from fl_sim.learning.returned import reply_form
from fl_sim.learning.rule import Draw, LocalRule
from fl_sim.tree import Tree
from fl_sim.wire.codec import Coding, Keys
from fl_sim.wire.payload import BETWEEN

ERROR_SHARE = "codec_error"
"""The metric of a client: norm of what its code has lost so far, divided by that of its update before coding."""


@dataclass
class Coded:
    """What coding the replies of an outcome gave, by client of the outcome."""

    num_bytes: int = 0
    """Of each client's reply as it is sent; 0: replies are not coded."""
    names: frozenset[str] = frozenset()
    """The leaves of a reply that are coded."""
    problems: dict[int, str] = field(default_factory=dict)
    """Position in C -> why its update cannot be coded."""
    kept: dict[int, Tree] = field(default_factory=dict)
    """Position in C -> what the codec keeps in the client's state."""
    codes: dict[int, Tree] = field(default_factory=dict)
    """Position in C -> its code, where codes are kept."""


def keys_of(draw: Draw) -> Keys:
    """The keys of a client's codec in one round."""
    return Keys(shared_key(draw.seed, draw.server_round), draw("codec"))


def shared_key(seed: int, server_round: int) -> int:
    """The key that all clients of a round and the server share."""
    return rng.key(seed, "codec", server_round)


def names_of(rule: LocalRule, form: Tree, loss: Loss) -> tuple[str, ...]:
    """The leaves of the model that are coded: those that are trained and travel."""
    return () if rule.reply_kind == "none" else tuple(k for k in loss.trainable if k in form)


def reply_bytes(learner: Learner, settings: Settings, received: Tree) -> int:
    """Bytes of a reply to a message for training: known before anybody trains.

    ``received``: the model with its payload as clients get it.
    """
    rule, coding = learner.rule("train", settings), learner.coding(settings)
    form = reply_form(rule, received, learner.loss)
    return tree.num_bytes(form) if coding is None else coding.num_bytes(names_of(rule, form, learner.loss), form)


def code_replies(
    coding: Coding,
    outcome: Outcome,
    block: Block,
    form: Tree,
    anchors: Tree,
    loss: Loss,
    with_code: bool,
) -> Coded:
    """Replace the replies of an outcome by those that the server reads, client by client.

    Parameters
    ----------
    coding : Coding
        How replies are coded.
    form : Tree
        The form of a reply.
    anchors : Tree
        The model from which the clients started, or theirs (C, ...) where these differ.
    with_code : bool
        Whether the codes themselves are wanted, as on a device.
    """
    names = names_of(block.rule, form, loss)
    parts = coding.parts(names, form)
    if not parts or shape_problem(outcome.replies, form, names, block.rule):
        return Coded()
    coded = Coded(coding.num_bytes(names, form), frozenset(k for part in parts.values() for k in part))
    own_anchors = any(anchors[k].dim() > form[k].dim() for k in names)
    rows, shares = list[Tree](), list[float]()
    for c, job in enumerate(outcome.jobs):
        reply = tree.take(outcome.replies, c)
        try:
            reply, share = _coded(coding, coded, c, job, reply, parts, block.rule, anchors, own_anchors, with_code)
        except KeyboardInterrupt:
            raise
        except BaseException:
            coded.problems[c], share = traceback.format_exc(), 0.0
        rows.append({k: reply[k] for part in parts.values() for k in part})
        shares.append(share)
    outcome.replies = {**outcome.replies, **tree.stack(rows)}
    if coding.feedback:
        outcome.metrics = {
            **outcome.metrics,
            ERROR_SHARE: torch.tensor(shares, dtype=torch.float64, device=loss.device),
        }
    return coded


def all_finite(leaves: Tree) -> bool:
    """Whether no number is NaN or infinite: a finite norm says so, in a tenth of the time of looking at each number."""
    floats = {k: x for k, x in leaves.items() if x.is_floating_point()}
    return math.isfinite(float(tree.norm(floats))) or bool(tree.finite(floats))


def _coded(
    coding: Coding,
    coded: Coded,
    c: int,
    job: Job,
    reply: Tree,
    parts: Mapping[str, Tree],
    rule: LocalRule,
    anchors: Tree,
    own_anchors: bool,
    with_code: bool,
) -> tuple[Tree, float]:
    """(one client's reply as the server reads it, ``codec_error``); writes what it sends and keeps into ``coded``.

    A reply that is not finite is left as it is: it is refused.
    """
    anchor = tree.take(anchors, c) if own_anchors else anchors
    of_model = {k: reply[k] for k in parts.get("", {})}
    updates = {
        name: update_of(of_model, anchor, rule) if not name else {k: reply[k] for k in part}
        for name, part in parts.items()
    }
    if not all(map(all_finite, updates.values())):
        return reply, 0.0
    sent = coding.send(updates, job.kept, keys_of(job.draw), with_code)
    if coding.feedback or sent.state:
        if not all_finite(sent.state):
            raise ValueError("NaN or infinity in what the codec keeps")
        coded.kept[c] = sent.state
    if with_code:
        coded.codes[c] = sent.code
    got = attacked(reply, anchor, rule, {k: sent.reply[k] for k in of_model})
    got |= {k: x for k, x in sent.reply.items() if BETWEEN in k}
    lost = {k: x for k, x in sent.state.items() if k.startswith("|error")}
    size = float(tree.norm(updates.get("", {}))) if lost else 0.0
    return got, float(tree.norm(lost)) / size if size else 0.0
