"""The arms of the study of writers: what each tries, and how many rounds it gets for the same gradient evaluations."""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

from fl_sim import rng

TOTAL = 800
"""Gradient evaluations of one place in a round's cohort, over all rounds: rounds x passes a round is this number."""
TRIALS = 12
"""Settings that are tried for each arm: a keyed sample of all combinations of its choices."""
STEPS = [f"--personalize_steps {n}" for n in (1, 5, 10, 20)]
TUNING = [f"--personalize_lr {rate:g}" for rate in (0.03, 0.1, 0.3)]
RATES = [f"--local.lr {rate:g}" for rate in (0.03, 0.1, 0.3)]
BEFORE, AFTER = "accuracy_before", "accuracy"


@dataclass(frozen=True, eq=False)
class Arm:
    """An algorithm with the settings that are tried."""

    name: str
    flags: str
    """Flags of all its runs, separated by blanks."""
    work: Sequence[tuple[str, int]]
    """(flags of a round's work, gradient evaluations of a client in a round), of which a trial has one."""
    choices: Sequence[Sequence[str]]
    """Flags of which a trial has one of each list."""
    unseen: str
    """How a client that never trained gets its model, one sentence."""
    column: str = AFTER
    """What is tuned and reported: accuracy of clients after fine-tuning, or before."""
    total: int = TOTAL

    def trials(self) -> list[list[str]]:
        """The flags of each trial."""
        every = list(itertools.product(self.work, itertools.product(*self.choices)))
        chosen = rng.sample(rng.key(0, f"trials of {self.name}"), len(every), min(TRIALS, len(every)))
        found = []
        for number in chosen:
            (work, passes), own = every[number]
            found.append([*" ".join([work, *own]).split(), "--rounds", str(self.total // passes)])
        return found


def _local(*steps: int, passes: int = 1) -> list[tuple[str, int]]:
    return [(f"--local.steps {n}", n * passes) for n in steps]


def _maml() -> list[tuple[str, int]]:
    """``inner_steps`` + 1 passes, of order 2 twice that."""
    of_order = [(order, n) for order in (1, 2) for n in ((1, 4, 9) if order == 1 else (1, 4))]
    return [(f"--strategy.order {order} --strategy.inner_steps {n}", order * (n + 1)) for order, n in of_order]


GLOBAL = "The global model, fine-tuned on the support set."
PERFEDAVG = [RATES, [f"--strategy.inner_lr {rate:g}" for rate in (0.01, 0.03, 0.1)], STEPS, TUNING]
ARMS = (
    Arm(
        "fedavg",
        "--strategy fedavg --personalize_steps 1",
        _local(10, 20, 40),
        [[*RATES, "--local.lr 0.05"]],
        "The global model as it is; the support set is not used.",
        BEFORE,
    ),
    Arm("fedavg + fine-tuning", "--strategy fedavg", _local(10, 20, 40), [RATES, STEPS, TUNING], GLOBAL),
    Arm(
        "local-only",
        "--strategy local-only --local.steps 1 --cohort 1",
        [("", 1)],
        [[f"--personalize_steps {n}" for n in (5, 20, 50, 100)], TUNING],
        "The initial model, trained on the support set alone, for as many as 100 steps (others: 20).",
        total=1,
    ),
    Arm(
        "reptile",
        "--strategy reptile",
        _local(10, 20, 40),
        [["--strategy.epsilon 0.5", "--strategy.epsilon 1"], RATES, STEPS, TUNING],
        GLOBAL,
    ),
    Arm(
        "maml",
        "--strategy maml",
        _maml(),
        [
            [f"--strategy.inner_lr {rate:g}" for rate in (0.03, 0.1, 0.3)],
            [f"--strategy.outer_lr {rate:g}" for rate in (0.1, 0.3, 1)],
            STEPS,
            TUNING,
        ],
        GLOBAL,
    ),
    Arm("perfedavg fo", "--strategy perfedavg --strategy.order fo", _local(5, 10, 20, passes=2), PERFEDAVG, GLOBAL),
    Arm("perfedavg hf", "--strategy perfedavg --strategy.order hf", _local(5, 10, passes=4), PERFEDAVG, GLOBAL),
    Arm("perfedavg exact", "--strategy perfedavg --strategy.order exact", _local(5, 10, passes=4), PERFEDAVG, GLOBAL),
    Arm(
        "ditto",
        "--strategy ditto",
        _local(5, 10, 20, passes=2),
        [[f"--strategy.lam {lam:g}" for lam in (0.1, 0.3, 1)], RATES, STEPS, TUNING],
        "The global model, fine-tuned without the pull of lambda: FedAvg's, with half of its steps.",
    ),
    Arm(
        "pfedme",
        "--strategy pfedme --strategy.personal_steps 5",
        _local(2, 4, 8, passes=5),
        [
            [
                *(f"--strategy.lam 15 --strategy.personal_lr {rate:g}" for rate in (0.03, 0.1)),
                *(f"--strategy.lam 5 --strategy.personal_lr {rate:g}" for rate in (0.1, 0.3)),
            ],
            ["--local.lr 0.01", "--local.lr 0.03"],
            ["--server.lr 1", "--server.lr 2"],
            STEPS,
            TUNING,
        ],
        "K personal steps on each batch of one pass over the support set, from the global model; then fine-tuned.",
    ),
    Arm(
        "fedrep",
        "--strategy fedrep",
        _local(5, 10, 20, passes=2),
        [RATES, STEPS, TUNING],
        "The shared body and the initial head, both fine-tuned on the support set.",
    ),
)
META = ("reptile", "maml", "perfedavg fo", "perfedavg hf", "perfedavg exact")
"""Arms that train an initialisation."""
