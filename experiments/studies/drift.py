"""``python -m experiments.studies.drift``: do the algorithms against client drift beat FedAvg and FedProx on CIFAR-10?

LeNet, 10 clients that all train in each round, labels by Dirichlet(.1) and Dirichlet(.5), plain SGD without momentum.
Reduced, so that the grid takes about an hour and a half of one core (``part_of_cifar10``). The learning rate of each
arm under each condition is chosen by the central validation share, on a seed that is not reported; other numbers are
the papers' or this project's defaults, untuned. A seed is that of run and partition: arms of a group have the same
partition, initial model and draws, and are compared seed by seed.

FedNova's arm has clients that make unequal numbers of epochs, MOON's a LeNet with a projection head, as FedAvg and
FedProx beside them. Runs lie in ``--out``; what it holds is not run again, so that the command may be interrupted.
Written are drift.csv (a line a run), .md and .png in ``experiments/results``, anew whenever a seed is complete. Other
flags go to all runs.
"""

import sys
from collections.abc import Sequence

from experiments.command_ends import ended
from experiments.run import main as run
from experiments.studies.arms import Arm, Study
from experiments.studies.arms_page import command
from experiments.studies.study_runs import Trials

ROUNDS, RATES = 20, (0.02, 0.05, 0.1, 0.2)
ONE, HEAD, UNEQUAL = "one epoch", "projection head", "1,1,5 epochs"
PROX = "--strategy fedprox --strategy.mu 0.01"
EPOCHS, PROJECTION = "--local.epochs_of 1,1,5", "--model.projection 84"
STUDY = Study(
    name="drift",
    explanation=f"""Does an algorithm against client drift beat FedAvg and FedProx? LeNet on CIFAR-10, 10 clients that
all train in each round, plain SGD without momentum, batches of 32. **Reduced**: 4000 of the 50 000 training pictures,
{ROUNDS} rounds of one epoch (published comparisons have 50 or more, of ten epochs), {len(RATES)} learning rates.
The models are far from converged: this compares early progress under drift, not final accuracies.

Every client has at least 50 pictures. Accuracy and loss: the global model's on 5000 test pictures, mean of the last
two evaluations; in brackets the lowest and the highest seed. Differences: in accuracy, seed by seed on one partition.
MB: sent and received in a run. A run that failed (a model that diverged) counts as accuracy .1, a trial as -1.
*1,1,5 epochs*: in every round two thirds of the clients make one epoch, the others five. *Projection head*: two layers
of 84 units before the last one, MOON's features (mu 1, tau .5). FedProx has mu .01, FedDyn alpha .1: untuned.""",
    common=[
        *("--task", "experiments.studies.part_of_cifar10:part_of_cifar10", "--validation", "0.3333"),
        *("--standardize", "true", "--partition", "dirichlet", "--partition.min_samples", "50", "--clients", "10"),
        *("--model", "lenet", "--local.batch_size", "32", "--rounds", str(ROUNDS), "--evaluate_every", "4"),
        *("--engine", "loop"),
    ],
    conditions={"Dirichlet(.1)": "--partition.alpha 0.1", "Dirichlet(.5)": "--partition.alpha 0.5"},
    arms=[
        Arm("fedavg", "--strategy fedavg", ONE),
        Arm("fedprox", PROX, ONE),
        Arm("scaffold", "--strategy scaffold", ONE),
        Arm("feddyn", "--strategy feddyn --strategy.alpha 0.1", ONE),
        Arm("fedavg", f"--strategy fedavg {PROJECTION}", HEAD),
        Arm("fedprox", f"{PROX} {PROJECTION}", HEAD),
        Arm("moon", f"--strategy moon {PROJECTION}", HEAD),
        Arm("fedavg", f"--strategy fedavg {EPOCHS}", UNEQUAL),
        Arm("fedprox", f"{PROX} {EPOCHS}", UNEQUAL),
        Arm("fednova", f"--strategy fednova {EPOCHS}", UNEQUAL),
    ],
    baselines=("fedavg", "fedprox"),
    trials=Trials(RATES, seed=100, column="val_accuracy"),
    tuned=f"""local.lr of {", ".join(f"{rate:g}" for rate in RATES)} for each arm under each condition, by the
accuracy on 2000 central validation pictures in one run with seed 100 (mean of the last two evaluations); nothing
else""",
    columns={"accuracy": "test accuracy", "loss": "test loss"},
    chance=0.1,
)


def main(argv: Sequence[str] | None = None) -> int:
    """The command. Returns 0; 2 for bad input; the exit code of an interruption."""
    return command(STUDY, run, __doc__, argv)


if __name__ == "__main__":
    sys.exit(ended(main))
