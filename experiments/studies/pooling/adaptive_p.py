"""``python -m experiments.studies.pooling.adaptive_p``: does strategy ``adaptive`` come near the best fixed exponent?

Digits and CIFAR-10 in 10 clients of Dirichlet(.1) and Dirichlet(1) labels. The exponent of ``pooled`` with lp is chosen
by the validation accuracy of each condition, as is that of nothing else: all runs have one learning rate. ``adaptive``
passes where its mean test accuracy is at most a point below that of the exponent chosen.

Runs lie in ``--out``; what it holds is not run again. Written are adaptive_p.csv (a line a run), .md and .png in
``experiments/results``. Other flags go to all runs.
"""

import sys
from collections.abc import Sequence

from experiments.command_ends import ended
from experiments.run import main as run
from experiments.studies.arms import Arm, Study
from experiments.studies.arms_page import command
from experiments.studies.study_runs import Trials

FIXED = ("1", "2", "4", "8", "16", "32")
DIGITS = "--task digits --model mlp --rounds 40"
CIFAR = (
    "--task experiments.studies.part_of_cifar10:part_of_cifar10 --task.train 3000 --task.test 3000"
    " --model lenet --rounds 25"
)
DIRICHLET = "--partition dirichlet --partition.alpha"

STUDY = Study(
    name="adaptive_p",
    package="experiments.studies.pooling",
    explanation="""Does the strategy `adaptive`, which tries three exponents of the power mean in each round on
validation samples, come near the best fixed exponent? Updates are pooled (`--strategy.of deltas`). Digits (a
perceptron, 40 rounds) and a part of CIFAR-10 (3000 pictures, LeNet, 25 rounds), each in 10 clients of Dirichlet(.1) or
Dirichlet(1) labels, all of which train in each round; one local epoch, batches of 16, SGD at .05, a tenth of the
training samples kept for validation.

Test accuracy, the mean of the last five rounds; in brackets the lowest and the highest seed. The best fixed exponent is
the one with the highest validation accuracy. `adaptive` stays where its test accuracy is at most a point below that
exponent's in all four conditions.""",
    common=[
        *("--clients", "10", "--local.epochs", "1", "--local.batch_size", "16", "--validation", "0.1"),
    ],
    conditions={
        f"{name}, alpha {alpha}": f"{flags} {DIRICHLET} {alpha}"
        for name, flags in (("digits", DIGITS), ("CIFAR-10", CIFAR))
        for alpha in ("0.1", "1")
    },
    arms=[
        Arm("adaptive", "--strategy adaptive"),
        *(
            Arm(f"p = {p}", f"--strategy pooled --strategy.reduction lp --strategy.of deltas --strategy.p {p}")
            for p in FIXED
        ),
    ],
    baselines=["adaptive"],
    trials=Trials((0.05,), seed=100, column="val_accuracy", last=5),
    tuned="nothing",
    columns={"accuracy": "accuracy", "val_accuracy": "validation accuracy"},
    chance=0.1,
)


def main(argv: Sequence[str] | None = None) -> int:
    """The command. Returns 0; 2 for bad input; the exit code of an interruption."""
    return command(STUDY, run, __doc__, argv)


if __name__ == "__main__":
    sys.exit(ended(main))
