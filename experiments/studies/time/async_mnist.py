"""``python -m experiments.studies.time.async_mnist``: synchronous and asynchronous training to an accuracy, in time.

Logistic regression on MNIST, 1000 clients of two shards each, half-normal durations drawn for each launch (Nguyen et
al. 2022), 100 clients at work: plain rounds, over-selected rounds, FedAsync and FedBuff. Their numbers are tuned on
validation samples, for each target, in runs with a seed that is not reported. In a second condition the slow third of
the devices holds all samples of the classes 8 and 9. Runs lie in ``--out``; what it holds is not run again. Written
are async_mnist.csv (a line a target and run), .md and .png in ``experiments/results``. Other flags go to all runs.
"""

import sys
from collections.abc import Sequence

from experiments.command_ends import ended
from experiments.run import main as run
from experiments.studies.time.four_arms import four_arms
from experiments.studies.time.slow_classes import RARE
from experiments.studies.time.target_times import TimeStudy
from experiments.studies.time.times_page import command

OWN = "experiments.studies.time.slow_classes"
ARMS = four_arms(at_work=100, first=77, over_select=1.2987, buffer=10, evaluate_virtual=0.5)
STUDY = TimeStudy(
    name="async_mnist",
    explanation="""How long does training take on devices that differ? Logistic regression on MNIST: 1000 clients of 57
digits (two shards; 5 % of the digits are for validation), batches of 10, one pass at rate .03. A launch takes |z|
virtual seconds, z standard normal, drawn anew each time. 100 clients are at work at a time: *sync* waits for all 100;
*over-selected sync* asks 100 and closes a round with the first 77; *fedasync* and *fedbuff* (a buffer of 10) replace
each client that is done.

**Tuned** for each arm, condition and target, by the time to the target on the validation samples: server rate 1, 2, 3,
5 and momentum 0, .9 (of fedasync, which has neither: alpha .1, .3, .6, 1, with a constant or a polynomial weight).
**Compared**: virtual seconds until an evaluation of the test set reaches the target for the first time. Asynchronous
runs are evaluated every half virtual second, synchronous ones after each round.

In the second condition only the slow third of the devices has 8 and 9. *Used work of slow devices*: their share of the
launches whose work counts; a third is even. Accuracies at the end are means over the last fifth of the time.""",
    common="--task mnist --model lr --clients 1000 --validation 0.05 --local.batch_size 10 --local.lr 0.03 "
    "--profile.per launch --profile.step 0.16666667 --set_metrics class_accuracy --stop.virtual_time 60 "
    "--rounds 100000",
    conditions={
        "classes spread over all devices": "--partition shards --profile halfnormal",
        "classes 8 and 9 on the slow third": f"--partition {OWN}:slow_shards --profile {OWN}:slow_third",
    },
    arms=ARMS,
    targets=(0.80, 0.86),
    apart=RARE,
)


def main(argv: Sequence[str] | None = None) -> int:
    """The command. Returns 0; 2 for bad input; the exit code of an interruption."""
    return command(STUDY, run, __doc__, argv)


if __name__ == "__main__":
    sys.exit(ended(main))
