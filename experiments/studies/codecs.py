"""``python -m experiments.studies.codecs``: how much accuracy do fewer bytes cost on CIFAR-10?

LeNet, labels by Dirichlet(1.0) and Dirichlet(.1); 10 of 100 clients in each round, or 20 clients that all train. Each
codec is an arm, beside FedAvg that sends whole models; all have one learning rate and are compared seed by seed, a seed
being that of run and partition. Reduced (``part_of_cifar10``).

Runs lie in ``--out``; what it holds is not run again, so that the command may be interrupted. Written are codecs.csv (a
line a run), .md and .png in ``experiments/results``, anew whenever a seed is complete. Other flags go to all runs.
"""

import sys
from collections.abc import Sequence

from experiments.command_ends import ended
from experiments.run import main as run
from experiments.studies.arms import Arm, Study
from experiments.studies.arms_page import command
from experiments.studies.study_runs import Trials

ROUNDS, RATE = 150, 0.1
FEW = "--task.train 12000 --clients 100 --cohort 10"
ALL = "--task.train 2400 --clients 20 --cohort 0"
STUDY = Study(
    name="codecs",
    explanation=f"""How much accuracy do fewer bytes cost? LeNet on CIFAR-10 (62 006 parameters), {ROUNDS} rounds of one
epoch, batches of 20, plain SGD. *10 %*: 10 of 100 clients a round, about 100 training pictures each; *all*: 20 clients
of 100 pictures that all train in each round. **Reduced**: 12 000 and 2400 of the 50 000 training pictures.

Accuracy: of the round with the best accuracy on central validation pictures, on 5000 test pictures; in brackets the
lowest and the highest seed. *error*: norm of what the clients' codes have lost so far, divided by that of their update
(column `train_codec_error`), in that round. MB: sent and received in a run; models are sent down whole. A run that
failed counts as accuracy .1. Codecs have their defaults but for the numbers named: error feedback but for int8 and
*no feedback*. *fixed*: groups that never change, the documented negative.""",
    common=[
        *("--task", "experiments.studies.part_of_cifar10:part_of_cifar10", "--validation", "0.16667"),
        *("--standardize", "true", "--partition", "dirichlet", "--partition.min_samples", "10"),
        *("--model", "lenet", "--local.batch_size", "20", "--rounds", str(ROUNDS), "--evaluate_every", "10"),
        *("--engine", "loop"),
    ],
    conditions={
        "Dirichlet(1.0), 10 %": f"--partition.alpha 1.0 {FEW}",
        "Dirichlet(.1), 10 %": f"--partition.alpha 0.1 {FEW}",
        "Dirichlet(1.0), all": f"--partition.alpha 1.0 {ALL}",
        "Dirichlet(.1), all": f"--partition.alpha 0.1 {ALL}",
    },
    arms=[
        Arm("fedavg", ""),
        Arm("topk 10 %", "--codec topk --codec.share 0.1"),
        Arm("topk 1 %", "--codec topk --codec.share 0.01"),
        Arm("topk 1 %, no feedback", "--codec topk --codec.share 0.01 --codec.feedback false"),
        Arm("int8", "--codec int8"),
        Arm("fp16", "--codec fp16"),
        Arm("grouped 8", "--codec grouped --codec.k 8"),
        Arm("grouped 8, fixed", "--codec grouped --codec.k 8 --codec.fixed true"),
        Arm("grouped 16..1", "--codec grouped --codec.schedule 16..1"),
        Arm("powersgd 2", "--codec powersgd --codec.rank 2"),
    ],
    baselines=("fedavg",),
    trials=Trials((RATE,), seed=100, column="val_accuracy"),
    tuned="nothing; the learning rate is FedAvg's best of .05, .1 and .2 by validation, one run each",
    columns={"accuracy": "test accuracy", "train_codec_error": "error"},
    chance=0.1,
    axis="mb_up",
    best_by="val_accuracy",
    margins={"topk 10 %": 0.01, "topk 1 %": 0.03},
)


def main(argv: Sequence[str] | None = None) -> int:
    """The command. Returns 0; 2 for bad input; the exit code of an interruption."""
    return command(STUDY, run, __doc__, argv)


if __name__ == "__main__":
    sys.exit(ended(main))
