"""``python -m experiments.studies.pooling.pools``: every pool on one setting, of weights and of deltas.

MNIST, 1000 clients of 60 digits, 10 a round, one epoch of batches of 10, 100 rounds, at one learning rate for all. A
seed is that of run and partition: arms have the same clients, initial model and draws, and are compared seed by seed.

Runs lie in ``--out``; what it holds is not run again. Written are pools.csv (a line a run), .md and .png in
``experiments/results``. Other flags go to all runs.
"""

import sys
from collections.abc import Sequence

from experiments.command_ends import ended
from experiments.run import main as run
from experiments.studies.arms import Arm, Study
from experiments.studies.arms_page import command
from experiments.studies.study_runs import Trials

RATE, ROUNDS = 0.1, 100
MLP, DELTAS, LR = "MLP-64, pools of weights", "MLP-64, pools of deltas", "logistic regression"


def pooled(name: str, group: str, reduction: str, more: str = "") -> Arm:
    """An arm of strategy ``pooled``."""
    model = "lr" if group == LR else "mlp"
    return Arm(name, f"--model {model} --strategy pooled --strategy.reduction {reduction} {more}", group)


STUDY = Study(
    name="pools",
    package="experiments.studies.pooling",
    explanation=f"""What does a pool other than the mean do to a network? MNIST in 1000 clients of 60 digits (IID, or
two shards of sorted digits each), 10 a round, one local epoch, batches of 10, SGD at {RATE:g} for all arms,
{ROUNDS} rounds; a perceptron with one hidden layer of 64 (50 890 parameters), and logistic regression.

Test accuracy after round {ROUNDS}; in brackets the lowest and the highest seed. Differences: seed by seed on one
partition. Of deltas only the pools are shown for which they are another algorithm than weights (`docs/pooling.md`),
beside their control: the mean with a server step of 2, because a pool of magnitudes takes larger steps. MB: sent and
received in a run.""",
    common=[
        *("--task", "mnist", "--clients", "1000", "--cohort", "10", "--local.batch_size", "10", "--local.epochs", "1"),
        *("--rounds", str(ROUNDS), "--evaluate_every", "10"),
    ],
    conditions={"IID": "--partition iid", "2-shard": "--partition shards --partition.shards_per_client 2"},
    arms=[
        pooled("mean", MLP, "mean"),
        pooled("max", MLP, "max"),
        pooled("min", MLP, "min"),
        pooled("softmax T = 1", MLP, "softmax"),
        pooled("lp p = 4", MLP, "lp"),
        pooled("l2norm", MLP, "l2norm"),
        pooled("median", MLP, "median"),
        pooled("trimmed .1", MLP, "trimmed"),
        pooled("geometric median", MLP, "geometric-median"),
        pooled("mean, server lr 1", DELTAS, "mean"),
        pooled("mean, server lr 2", DELTAS, "mean", "--server.lr 2"),
        pooled("absmax of deltas", DELTAS, "absmax", "--strategy.of deltas"),
        pooled("l2 of deltas", DELTAS, "l2", "--strategy.of deltas"),
        pooled("mean", LR, "mean"),
        pooled("max", LR, "max"),
    ],
    baselines=("mean", "mean, server lr 1", "mean, server lr 2"),
    trials=Trials((RATE,), seed=100, column="accuracy", last=1),
    tuned="nothing",
    columns={"accuracy": "accuracy", "loss": "loss"},
    chance=0.1,
)


def main(argv: Sequence[str] | None = None) -> int:
    """The command. Returns 0; 2 for bad input; the exit code of an interruption."""
    return command(STUDY, run, __doc__, argv)


if __name__ == "__main__":
    sys.exit(ended(main))
