"""``python -m experiments.studies.time.async_cifar``: ``async_mnist`` with LeNet on CIFAR-10, and devices that vanish.

A fixed part of CIFAR-10 (6000 pictures to train on), 100 clients by Dirichlet(.3), log-normal devices of which each
keeps its own (Lai et al. 2022), a tenth of the launches vanish, 20 clients at work: plain rounds, over-selected rounds,
FedAsync and FedBuff. Their numbers are tuned on validation samples, for each target, in runs with a seed that is not
reported. Runs lie in ``--out``; what it holds is not run again. Written are async_cifar.csv (a line a target and run),
.md and .png in ``experiments/results``. Other flags go to all runs.
"""

import sys
from collections.abc import Sequence

from experiments.command_ends import ended
from experiments.run import main as run
from experiments.studies.part_of_cifar10 import part_of_cifar10
from experiments.studies.time.four_arms import four_arms
from experiments.studies.time.target_times import TimeStudy
from experiments.studies.time.times_page import command

STUDY = TimeStudy(
    name="async_cifar",
    explanation="""How long does training take on devices that differ, keep their speed, and vanish? LeNet on a fixed
part of CIFAR-10: 100 clients by Dirichlet(.3), 60 pictures each in the mean and at least 10, batches of 10, one pass at
rate .05. A step takes 1/6 virtual second on a device of slowness 1; slowness is log-normal (deviation .6), and each
client keeps its own, so that who has many pictures or a slow device is late each time. A tenth of all launches vanish,
at a uniform instant of their work, and nobody waits for these. 20 clients are at work at a time: *sync* waits for all;
*over-selected sync* asks 20 and closes a round with the first 15; *fedasync* and *fedbuff* (a buffer of 5) replace each
client that is done.

**Tuned** for each arm and target, by the time to the target on 2000 validation pictures: server rate 1, 2, 3 and
momentum 0, .9 (of fedasync, which has neither: alpha .3, .6, 1, with a constant or a polynomial weight). **Compared**:
virtual seconds until an evaluation of 2000 test pictures reaches the target for the first time. Asynchronous runs are
evaluated every four virtual seconds, synchronous ones after each round. *Used work of slow devices*: their share of the
launches whose work counts; a third is even. Accuracies at the end are means over the last fifth of the time.""",
    common=f"--task {part_of_cifar10.__module__}:part_of_cifar10 --task.train 8000 --task.test 2000 --validation 0.25 "
    "--model lenet --standardize true --clients 100 --local.batch_size 10 --local.lr 0.05 --profile.step 0.16666667 "
    "--profile.vanish 0.1 --stop.virtual_time 400 --rounds 100000",
    conditions={
        "lognormal devices, a tenth vanish": "--partition dirichlet --partition.alpha 0.3 --partition.min_samples 10 "
        "--profile lognormal"
    },
    arms=four_arms(at_work=20, first=15, over_select=1.3333, buffer=5, evaluate_virtual=4, rates=(1, 2, 3)),
    targets=(0.30, 0.35),
)


def main(argv: Sequence[str] | None = None) -> int:
    """The command. Returns 0; 2 for bad input; the exit code of an interruption."""
    return command(STUDY, run, __doc__, argv)


if __name__ == "__main__":
    sys.exit(ended(main))
