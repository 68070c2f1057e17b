"""``python -m experiments.studies.personal``: Ditto, FedAvg with fine-tuning and local training, where labels differ.

CIFAR-10 with two labels a client, LeNet, 20 clients that all train in each round. Each arm is judged by the mean
accuracy of its clients' own models on their held-out pictures: of FedAvg the global model after fine-tuning, of the
others the client's own model as it is. The learning rate of each arm is chosen on other pictures than those that are
reported, by the same measure; other numbers are untuned. A seed is that of run and partition.

Runs lie in ``--out``; what it holds is not run again. Written are personal.csv (a line a run), .md and .png in
``experiments/results``. Other flags go to all runs.
"""

import sys
from collections.abc import Sequence

from experiments.command_ends import ended
from experiments.run import main as run
from experiments.studies.arms import Arm, Study
from experiments.studies.arms_page import command
from experiments.studies.study_runs import Trials

ROUNDS, RATES, PICTURES = 20, (0.05, 0.1, 0.2), 6000
BEFORE, AFTER = "personal_accuracy_before", "personal_accuracy"
STUDY = Study(
    name="personal",
    explanation=f"""Does a personal model gain from the others? LeNet on CIFAR-10, two labels a client (NIID-Bench's
partition by labels), 20 clients that all train in each round, {ROUNDS} rounds of one epoch, batches of 32, plain SGD.
**Reduced**: {PICTURES} of the 50 000 training pictures, of which each client holds out 30 % for its own evaluation.

Accuracy: mean over clients on their held-out pictures, after the last round; in brackets the lowest and the highest
seed. *Before* and *after* 20 fine-tuning steps at the arm's learning rate: of the global model (FedAvg), or the
client's own (Ditto, local-only). **Compared** are FedAvg after, the others before fine-tuning, seed by seed on one
partition; and all arms after it, because local models have not converged, and gain from more steps too. MB: sent and
received in a run. Ditto's lambda is .1, of this project, untuned.""",
    common=[
        *("--task", "experiments.studies.part_of_cifar10:part_of_cifar10", "--task.train", str(PICTURES)),
        *("--standardize", "true", "--partition", "labels", "--partition.labels_per_client", "2", "--clients", "20"),
        *("--partition.held_out", "0.3", "--model", "lenet", "--local.batch_size", "32", "--rounds", str(ROUNDS)),
        *("--evaluate_every", str(ROUNDS), "--personalize_steps", "20", "--engine", "loop"),
    ],
    conditions={"two labels a client": ""},
    arms=[
        Arm("local-only", "--strategy local-only", column=BEFORE),
        Arm("fedavg + fine-tuning", "--strategy fedavg", column=AFTER),
        Arm("ditto", "--strategy ditto --strategy.lam 0.1", column=BEFORE),
    ],
    baselines=("local-only", "fedavg + fine-tuning"),
    trials=Trials(RATES, seed=100, column=AFTER, flags=["--task.skip", str(PICTURES)], last=1),
    tuned=f"""local.lr of {", ".join(f"{rate:g}" for rate in RATES)} for each arm, by the compared accuracy on
{PICTURES} other pictures (seed 100); nothing else""",
    columns={BEFORE: "before fine-tuning", AFTER: "after fine-tuning"},
    chance=0.0,
    also=[AFTER],
)


def main(argv: Sequence[str] | None = None) -> int:
    """The command. Returns 0; 2 for bad input; the exit code of an interruption."""
    return command(STUDY, run, __doc__, argv)


if __name__ == "__main__":
    sys.exit(ended(main))
