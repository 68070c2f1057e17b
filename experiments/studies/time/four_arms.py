"""What studies in virtual time compare: plain rounds, over-selected rounds, FedAsync, FedBuff."""

from collections.abc import Sequence
from itertools import product

from experiments.studies.time.target_times import TimedArm

FLOWER = "--strategy flwr.serverapp.strategy:FedAvgM"


def four_arms(
    at_work: int,
    first: int,
    over_select: float,
    buffer: int,
    evaluate_virtual: float,
    rates: Sequence[float] = (1, 2, 3, 5),
) -> tuple[TimedArm, ...]:
    """Plain rounds, over-selected rounds, FedAsync and FedBuff, each with as many clients at work.

    Parameters
    ----------
    at_work, buffer : int
        Clients at work at a time, and how many of them FedBuff's step takes.
    first, over_select : int, float
        Over-selected rounds end with so many answers; ``first * over_select``, rounded up, is ``at_work``.
    evaluate_virtual : float
        Virtual seconds between evaluations of asynchronous runs.
    rates : Sequence[float]
        Server rates to choose from, each with momentum 0 and .9; of FedAsync as many weights alpha, each constant
        and polynomial in staleness.
    """
    alphas = (0.1, 0.3, 0.6, 1) if len(rates) > 3 else (0.3, 0.6, 1)[: len(rates)]
    averaged = [
        f"--strategy.server_learning_rate {lr} --strategy.server_momentum {m}" for lr, m in product(rates, (0, 0.9))
    ]
    buffered = [f"--server.lr {lr} --strategy.beta {beta}" for lr, beta in product(rates, (0, 0.9))]
    mixed = [
        f"--strategy.alpha {alpha} --strategy.staleness {s}" for alpha, s in product(alphas, ("constant", "polynomial"))
    ]
    free = f"--concurrency {at_work} --evaluate_virtual {evaluate_virtual:g}"
    return (
        TimedArm("sync", f"{FLOWER} --cohort {at_work}", averaged),
        TimedArm("over-selected sync", f"{FLOWER} --cohort {first} --system.over_select {over_select:g}", averaged),
        TimedArm("fedasync", f"--strategy fedasync {free}", mixed),
        TimedArm("fedbuff", f"--strategy fedbuff --strategy.buffer {buffer} {free}", buffered),
    )
