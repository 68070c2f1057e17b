"""``python -m experiments.studies.fedbn_mnist``: do normalisation layers at home help where features differ by client?

FedBN (Li et al. 2021) against FedAvg and against local training without communication, on the recipe ``fedbn-mnist``:
MNIST in 10 clients that all train in each round, labels alike, pictures shifted by client. Accuracy is personal: that
of the model that a client would use on its own held-out digits.

The learning rate of each arm is chosen on a seed that is not reported, so on other clients with other shifts. A seed is
that of run and partition: arms have the same clients, shifts, initial model and draws, and are compared seed by seed.
Runs lie in ``--out``; what it holds is not run again. Written are fedbn_mnist.csv (a line a run), .md and .png in
``experiments/results``. Other flags go to all runs.
"""

import sys
from collections.abc import Sequence

from experiments.command_ends import ended
from experiments.run import main as run
from experiments.studies.arms import Arm, Study
from experiments.studies.arms_page import command
from experiments.studies.study_runs import Trials

RECIPE, RATES = "fedbn-mnist", (0.05, 0.1, 0.2)
STUDY = Study(
    name="fedbn_mnist",
    explanation=f"""Do normalisation layers that stay at home help where features differ by client? MNIST in 10 clients
with labels alike, each with a contrast, an inversion, a noise and a rotation of its own, and a small CNN with
BatchNorm: the recipe `{RECIPE}`. **Reduced**: 10 rounds of 10 steps of 32 digits a client, {len(RATES)} learning
rates. The models are far from converged.

Personal accuracy: of the model that a client would use (its own; of FedAvg the global one) on its 600 held-out digits,
mean over clients; in brackets the lowest and the highest seed. *After fine-tuning*: the same after 20 more steps on the
client's training part, at the rate of the run. **Compared**, seed by seed, is the personal accuracy before fine-tuning;
of *fedavg + fine-tuning*, whose rate is chosen by it too, that after. MB: sent and received in a run.""",
    common=["--engine", "loop"],
    conditions={"feature shift 1": "--partition.feature_shift 1"},
    arms=[
        *(Arm(name, f"--strategy {name}") for name in ("fedavg", "local-only", "fedbn")),
        Arm("fedavg + fine-tuning", "--strategy fedavg", column="personal_accuracy"),
    ],
    baselines=("fedavg", "local-only", "fedavg + fine-tuning"),
    trials=Trials(RATES, seed=100, column="personal_accuracy_before"),
    tuned=f"""local.lr of {", ".join(f"{rate:g}" for rate in RATES)} for each arm, by the compared
accuracy in one run with seed 100, whose clients hold out other digits (of the same 60 000); nothing else""",
    columns={"personal_accuracy_before": "personal accuracy", "personal_accuracy": "after fine-tuning"},
    chance=0.1,
)


def of_recipe(words: Sequence[str]) -> int:
    """``experiments.run.main`` of the recipe."""
    return run([RECIPE, *words])


def main(argv: Sequence[str] | None = None) -> int:
    """The command. Returns 0; 2 for bad input; the exit code of an interruption."""
    return command(STUDY, of_recipe, __doc__, argv)


if __name__ == "__main__":
    sys.exit(ended(main))
