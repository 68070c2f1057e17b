"""What a strategy's replies must be: read from the strategy and the run's model, never from the replies alone.

This project's strategies, and Flower's where its own code averages, combine replies element by element: their arrays
must look alike. A strategy that aggregates by itself may have a protocol of its own.
"""

from collections.abc import Sequence
from typing import Any

from flwr.app import Message
from flwr.serverapp.strategy import Strategy

from fl_sim.grids.untrusted_replies.exchange_replies import Expected
from fl_sim.tree import Tree
from fl_sim.wire import flower, reply_form
from fl_sim.wire.payload import RECORD
from fl_sim.wire.pool import PoolingStrategy
from fl_sim.wire.reply_form import Likes, NumbersForm


def of_own(
    strategy: PoolingStrategy, phase: str, own_pools: bool, max_examples: float, beside: Sequence[str] = ()
) -> Expected:
    """What replies to a strategy with a pool must be, in ``train`` or in its evaluation.

    ``beside`` : names of the payload's trees.
    """
    training = phase == "train"
    return Expected(
        flower.weight_key(strategy),
        max_examples,
        tuple(strategy.required_numbers.get(phase, ())),
        not_finite="null" if training else "left out",
        zero_is_failure=False,
        one_model=training and not own_pools,
        combined=training,
        own_model=True,
        payload=[] if own_pools else [RECORD + name for name in beside],
        own_pools=own_pools,
    )


def of_foreign(
    strategy: Strategy, phase: str, messages: Sequence[Message], replies: Sequence[Message], initial: Tree, most: float
) -> tuple[Expected, Likes]:
    """What replies to any other strategy must be, and the form of their arrays.

    Parameters
    ----------
    messages, replies : Sequence[Message]
        All of the exchange; replies whose arrays cannot be read are not among them.
    initial : Tree
        The run's first model, whose dtypes replies may have.
    most : float
        The largest weight.
    """
    training, key = phase == "train", flower.weight_key(strategy)
    inner: Any = flower.innermost(strategy)
    averages = flower.averages(strategy, "aggregate_train" if training else "aggregate_evaluate")
    own: Any = getattr(strategy, "required_numbers", {}).get(phase, ())
    form = None
    if averages and not own:
        function = getattr(inner, "train_metrics_aggr_fn" if training else "evaluate_metrics_aggr_fn", None)
        lists = str(getattr(function, "__module__", "")).startswith("flwr.")
        form = NumbersForm.of([reply for reply in replies if reply.has_content()], key, training, lists)
    private = flower.is_private(strategy)
    expected = Expected(
        key,
        most,
        (*(own or ((key,) if averages else ())), *(flower.required_by_wrappers(strategy) if training else ())),
        enter_model=[loss] if (loss := getattr(inner, "train_loss_key", "")) else [],
        not_finite="failure" if private else "null" if training or not (averages or own) else "left out",
        zero_is_failure=False,
        passes_zero=not averages,
        any_arrays=not training,
        one_model=training and averages,
        combined=training and averages,
        numbers_form=form,
    )
    if not training or not (averages or flower.averages_within(strategy)):
        return expected, reply_form.anything
    return expected, reply_form.expected(messages, replies, initial, averages)
