"""Leaves of the model that stay with their client: they travel in its state, and in no message (``LocalRule.home``).

A rule never sees this: it gets the whole model and returns a whole one. Before the call the client's own leaves are
filled in from its state, where they have names of their own (``home::NAME``); after it they are taken out of the reply.
"""

from collections.abc import Mapping, Sequence

from torch import Tensor

from fl_sim.errors import ConfigError
from fl_sim.learning.loss import Loss
from fl_sim.learning.rule import LocalRule
from fl_sim.tree import Tree

IN_STATE = "home::"
"""How the names of such leaves begin in a client's state."""


def names_of(rule: LocalRule, loss: Loss) -> tuple[str, ...]:
    """The leaves that stay with the client, in the order of the model; none for most rules.

    Raises ConfigError where ``rule.home`` names what is no leaf of the model, or the rule replies with updates: of a
    gradient it is not known what it makes of a leaf.
    """
    if type(rule).home is LocalRule.home:
        return ()
    found, known, who = rule.home(loss), loss.form.names, type(rule).__name__
    if isinstance(found, str):
        raise ConfigError(f"home of {who} = {found!r}: it must give several names, such as ({found!r},)")
    named = set(found)
    if unknown := sorted(str(name) for name in named - set(known)):
        rest = f"choose among {', '.join(known[:20])}{' ...' if len(known) > 20 else ''}"
        raise ConfigError(f"home of {who} has {', '.join(unknown[:5])}, no leaf of the model; {rest}")
    if named and rule.reply_kind == "update":
        what = "an update does not say what becomes of a leaf that stays with its client"
        raise ConfigError(f"home of {who}: its reply_kind is 'update'; {what}: reply with the model ('weights')")
    return tuple(name for name in known if name in named)


def whole(model: Mapping[str, Tensor], home: Mapping[str, Tensor], loss: Loss) -> Tree:
    """The whole model: ``home`` by name, and all other leaves from ``model``, in the order of the network's leaves."""
    every = {**model, **home}
    return {**{k: every[k] for k in loss.form.names if k in every}, **every}


def of_client(state: Mapping[str, Tensor], names: tuple[str, ...]) -> tuple[Tree, Tree]:
    """(the rule's own state, the leaves ``names`` of the model) of a client's state. Raises ValueError without them."""
    own, home = split_state(state)
    if missing := [k for k in names if k not in home]:
        what = f"the client's state lacks {', '.join(missing[:5])}, which stays with the client"
        raise ValueError(f"{what}: it is the state of another strategy")
    return own, {k: home[k] for k in names}


def split_state(state: Mapping[str, Tensor]) -> tuple[Tree, Tree]:
    """(the rule's own state, the leaves of the model that the client keeps, by their names in the model)."""
    own = {k: x for k, x in state.items() if not k.startswith(IN_STATE)}
    return own, {k.removeprefix(IN_STATE): x for k, x in state.items() if k.startswith(IN_STATE)}


def with_home(state: Mapping[str, Tensor], home: Mapping[str, Tensor]) -> Tree:
    """A client's state of the rule's own and of the leaves that it keeps."""
    return {**state, **{IN_STATE + k: x for k, x in home.items()}}


def first_home(names: tuple[str, ...], loss: Loss) -> Tree:
    """The values with which every client begins: those of the network's own weights."""
    initial = loss.initial() if names else {}
    return {k: initial[k] for k in names}


def taken_out(reply: Tree, names: tuple[str, ...], before: Tree, loss: Loss) -> tuple[Tree, Tree]:
    """(the reply without the leaves that stay with the client, these leaves).

    A leaf that is not trained keeps its value of ``before``, the whole model before training, where the reply lacks it.
    Raises ValueError for a leaf that is missing, or has another shape or dtype.
    """
    home: Tree = {}
    for k in names:
        if k not in reply and k in loss.trainable:
            raise ValueError(f"the reply lacks {k}, which stays with its client; reply with the whole model")
        x = home[k] = reply.get(k, before[k])
        if (x.shape, x.dtype) != (before[k].shape, before[k].dtype):
            must = f"{tuple(before[k].shape)} {before[k].dtype}"
            raise ValueError(f"{k}, which stays with its client, is {tuple(x.shape)} {x.dtype}, must be {must}")
    return {k: x for k, x in reply.items() if k not in home}, home


def note(names: Sequence[str], loss: Loss) -> str:
    """What a run must be told of leaves that stay with their clients, in one sentence; empty where there are none."""
    rest = len(loss.form.names) - len(names)
    of_clients = "a personal evaluation (personalize_steps) evaluates the clients' own"
    if not names:
        return ""
    if not rest:
        return f"the whole model stays with its client; the central evaluation is of the initial model, {of_clients}"
    which = f"{', '.join(names[:5])}{' ...' if len(names) > 5 else ''}"
    what = f"{len(names)} of the model's {len(names) + rest} arrays stay with their clients ({which})"
    return f"{what}, and the central evaluation uses their initial values; {of_clients}"
