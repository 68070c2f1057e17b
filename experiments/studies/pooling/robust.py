"""``python -m experiments.studies.pooling.robust``: which pooling of models withstands which attack.

Every rule of RULES against every attack of ATTACKS, a fifth of the clients malicious, on MNIST (MLP with 64 units) and
on a part of CIFAR-10 (LeNet). A seed is that of run, partition and malicious clients, so that all rules meet the same
ones. Nothing is tuned: every run has the same learning rate.

Runs lie in ``--out``; what it holds is not run again, so that a rule may be added later. Written are robust.csv (a line
a run), .md (a table for each data set: rules by attacks) and .png in ``experiments/results``. Other flags go to all
runs.
"""

import sys
from collections.abc import Sequence

from experiments.command_ends import ended
from experiments.run import main as run
from experiments.studies.arms import Arm, Study
from experiments.studies.part_of_cifar10 import part_of_cifar10
from experiments.studies.pooling.matrix_page import command
from experiments.studies.study_runs import Trials

CLIENTS, SHARE, RATE, PICTURES = 10, 0.2, 0.1, 6000
MALICIOUS = round(CLIENTS * SHARE)
RULES: dict[str, str] = {
    "mean": "--strategy fedavg",
    "median": "--strategy pooled --strategy.reduction median",
    "trimmed mean": f"--strategy pooled --strategy.reduction trimmed --strategy.share {SHARE}",
    "geometric median": "--strategy pooled --strategy.reduction geometric-median",
    "Krum": f"--strategy flwr.serverapp.strategy:Krum --strategy.num_malicious_nodes {MALICIOUS}",
    "max": "--strategy pooled --strategy.reduction max",
}
"""What the server does with replies -> its flags."""
LATER = ("collaborative", "adaptive")
"""Strategies of this project that are rules too; adaptive chooses by a central tenth of the training samples."""
RULES |= {name: f"--strategy {name}" for name in LATER}
RULES["adaptive"] += " --validation 0.1"
ATTACKS: dict[str, str] = {
    "none": "",
    **{
        title: f"--attack {flags} --attack.share {SHARE}"
        for title, flags in {
            "sign-flip": "sign-flip",
            "label-flip": "label-flip",
            "noise": "noise",
            "ipm 10": "ipm --attack.eps 10",
            "ipm .5": "ipm --attack.eps .5",
            "alie": "alie",
        }.items()
    },
}
"""The attack's title -> its flags."""
TASKS: dict[str, str] = {
    "MNIST": "--task mnist --model mlp --local.batch_size 32 --local.steps 20 --rounds 15 --evaluate_every 15 "
    "--engine vmap",
    "CIFAR-10": f"--task {part_of_cifar10.__module__}:part_of_cifar10 --task.train {PICTURES} --standardize true "
    "--model lenet --local.batch_size 16 --local.steps 10 --rounds 15 --evaluate_every 15 --engine loop",
}
"""The data set's name -> its flags."""
STUDY = Study(
    name="robust",
    package="experiments.studies.pooling",
    explanation=f"""Which rule withstands which attack? {CLIENTS} clients that all train in each round, Dirichlet(1) by
labels, plain SGD at {RATE}; {MALICIOUS} of them are malicious, the same ones in each round and for each rule
(`--attack NAME --attack.share {SHARE}`, docs/pooling.md). MNIST with an MLP of 64 units: 15 rounds of 20 steps of 32
digits. CIFAR-10 with LeNet: 15 rounds of 10 steps of 16 pictures. **Reduced**: few rounds; {PICTURES} of the 50 000
training pictures of CIFAR-10, whose models are far from converged; nothing is tuned.

Accuracy of the global model on the test set after the last round: mean over seeds, in brackets the lowest and the
highest. A run that failed, because its model was no longer finite, counts as .1. `trimmed mean` leaves out {SHARE:g} at
each end, and `Krum` (Flower's, which takes one client's model) is told how many are malicious: both know what no server
knows. `adaptive` keeps a tenth of the training samples on the server, and chooses by them. Median and trimmed mean
count every client once, mean and geometric median by its samples.""",
    common=["--partition", "dirichlet", "--partition.alpha", "1", "--clients", str(CLIENTS)],
    conditions=ATTACKS,
    arms=[Arm(name, f"{flags} {own}", group) for group, own in TASKS.items() for name, flags in RULES.items()],
    baselines=("mean",),
    trials=Trials((RATE,), seed=100, column="accuracy", last=1),
    tuned="nothing",
    columns={"accuracy": "accuracy"},
    chance=0.1,
)


def main(argv: Sequence[str] | None = None) -> int:
    """The command. Returns 0; 2 for bad input; the exit code of an interruption."""
    return command(STUDY, run, __doc__, argv)


if __name__ == "__main__":
    sys.exit(ended(main))
