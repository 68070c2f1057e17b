"""``python -m experiments.studies.pooling.hierarchy``: do edges between clients and server save traffic to the server?

MNIST in 50 clients of two shards of sorted digits each, all of which train in each round. Between two poolings at the
server each client takes 60 steps in every arm: at once (FedAvg), or in turns of 30, 15 or 6 steps, between which five
edges of ten clients pool (HierFAVG, Liu et al. 2020, whose question this is, in their section IV). Further arms: FedAvg
that pools at the server as often as the edges do, three levels, and edges that pool by the median.

Runs lie in ``--out``; what it holds is not run again. Written are hierarchy.csv (a line a run), .md and .png in
``experiments/results``. Other flags go to all runs.
"""

import sys
from collections.abc import Sequence

from experiments.command_ends import ended
from experiments.run import main as run
from experiments.studies.arms import Arm, Study
from experiments.studies.arms_page import command
from experiments.studies.study_runs import Trials

RATE, STEPS, POOLINGS = 0.05, 60, 20
"""Of SGD; of a client between two poolings at the server; at the server."""
FEDAVG = "FedAvg"


def turns(name: str, every: int, strategy: str) -> Arm:
    """An arm whose clients take STEPS steps in ``every`` rounds; it is evaluated after each STEPS."""
    sizes = f"--local.steps {STEPS // every} --rounds {POOLINGS * every} --evaluate_every {every}"
    return Arm(f"{name}, {every} x {STEPS // every}", f"{strategy} {sizes}")


def edges(every: int, more: str = "") -> str:
    """Flags of five edges that are pooled every ``every`` rounds."""
    return f"--strategy hierarchical --strategy.edges 5 --strategy.every {every} {more}".rstrip()


STUDY = Study(
    name="hierarchy",
    package="experiments.studies.pooling",
    explanation=f"""Do edges between clients and server save traffic to the server, or steps of the clients? MNIST in
50 clients, IID or two shards of sorted digits each, all of which train in each round; a perceptron with one hidden
layer of 64, batches of 20, SGD at {RATE:g}. Each client takes {POOLINGS * STEPS} steps in every arm: `k x s` are k
rounds of s steps, after which the server has pooled once, or with FedAvg k times. HierFAVG (Liu et al. 2020) has five
edges of ten clients, which pool each round; three levels are ten edges and two regions, which pool five times each
before the server does. Which edge a client belongs to is drawn, so edges have all labels between them, as in the
paper's edge-IID case.

Test accuracy after all steps; in brackets the lowest and the highest seed. MB at the server are what it, and levels
between it and the edges, sent and got; with FedAvg all traffic is the server's.""",
    common=[
        *("--task", "mnist", "--model", "mlp", "--clients", "50", "--local.batch_size", "20"),
    ],
    conditions={"IID": "--partition iid", "2-shard": "--partition shards --partition.shards_per_client 2"},
    arms=[
        turns(FEDAVG, 1, "--strategy fedavg"),
        turns(FEDAVG, 10, "--strategy fedavg"),
        *(turns("HierFAVG", every, edges(every)) for every in (2, 4, 10)),
        turns("three levels", 10, "--strategy hierarchical --strategy.edges 10,2 --strategy.every 5,2"),
        turns("edges by the median", 10, edges(10, "--strategy.reduction median")),
    ],
    baselines=(f"{FEDAVG}, 1 x {STEPS}", f"{FEDAVG}, 10 x {STEPS // 10}"),
    trials=Trials((RATE,), seed=100, column="accuracy", last=1),
    tuned="nothing",
    columns={"accuracy": "accuracy", "loss": "loss"},
    chance=0.1,
    axis="steps",
)


def main(argv: Sequence[str] | None = None) -> int:
    """The command. Returns 0; 2 for bad input; the exit code of an interruption."""
    return command(STUDY, run, __doc__, argv)


if __name__ == "__main__":
    sys.exit(ended(main))
