"""What is done: the workloads of the benchmark (NUMBERS.md, S1 to S4), as plain numbers that travel to child processes. No paper."""

from dataclasses import asdict, dataclass, field, replace
from typing import Any

OURS = ("ours-loop", "ours-vmap", "ours-ray")
OTHERS = ("bare", "bare-careful", "flower", "flower-careful", "pfl", "blazefl")


@dataclass(frozen=True)
class Work:
    """One workload. A *go* is what is timed: one round, or one whole run in a process of its own."""

    name: str
    """What the table calls it; ``group`` is what ``--work`` calls it."""
    group: str
    what: str
    """One line for people, the same for a group."""
    variant: str = ""
    """Which of the group."""
    task: str = ""
    """cifar10 or mnist; empty: clients do nothing."""
    model: str = "lr"
    partition: dict[str, Any] = field(default_factory=lambda: {"name": "iid"})
    clients: int = 0
    cohort: int = 0
    batch: int = 10
    lr: float = 0.1
    standardize: bool = False
    rounds: int = 1
    """Rounds a go."""
    evaluate_every: int = 0
    """Evaluations inside a go, every so many rounds; 0: none, and one after the last go, not timed."""
    whole: bool = False
    """A go is a whole run, from after the imports to the end: a new process each."""
    warmup: int = 1
    """Goes before the timed ones."""
    goes: int = 5
    """Timed goes."""
    systems: tuple[str, ...] = OURS + OTHERS
    reference: str = "bare-careful"
    """The system that the others are divided by; empty: none."""
    limit_s: float = 900.0
    """Longest time that one answer may take."""
    train: int = 0
    """Training samples, where the arrays are random."""
    test: int = 10_000
    """Test samples, where the arrays are random."""
    random: bool = False
    """Random arrays, whether or not the real data are there."""

    def to_dict(self) -> dict[str, Any]:
        """For the way to a child."""
        return asdict(self)


def _zero(sampled: int, registered: int) -> Work:
    return Work(
        f"S3-{sampled}-of-{registered}",
        "S3",
        "clients that do nothing: so many sampled a round, of so many registered",
        f"{sampled} of {registered}",
        clients=registered,
        cohort=sampled,
        warmup=2,
        goes={10_000: 8, 100_000: 3}.get(registered, 20),
        systems=("ours-loop", "ours-vmap", "ours-ray", "flower"),
        reference="flower",
    )


def _scale(name: str, registered: int, systems: tuple[str, ...]) -> Work:
    return Work(
        name,
        "S4",
        "so many registered clients, 1000 a round, 20 rounds of MNIST logistic regression, 20 samples a client drawn with replacement; "
        "a whole run, from after the imports to the end",
        f"{registered} registered",
        task="mnist",
        clients=registered,
        cohort=1000,
        partition={"name": "resample", "samples_per_client": 20},
        lr=0.03,
        rounds=20,
        evaluate_every=20,
        whole=True,
        warmup=0,
        goes=1,
        systems=systems,
        reference="",
        train=60_000,
    )


WORKS = (
    Work(
        "S1", "S1", "CNN of 1.6 M parameters on CIFAR-10: 1000 clients x 50 images IID, 50 a round, batches of 10, SGD .1, 1 epoch",
        task="cifar10", model="cnn", clients=1000, cohort=50, standardize=True, train=50_000,
    ),
    Work(
        "S1-skew", "S1-skew", "the same CNN: 100 clients by Dirichlet(0.1), 10 a round, batches of 32",
        task="cifar10", model="cnn", partition={"name": "dirichlet", "alpha": 0.1}, clients=100, cohort=10, batch=32,
        standardize=True, train=50_000,
    ),
    Work(
        "S2", "S2", "logistic regression on MNIST: 1000 clients of 2 shards, 10 a round, batches of 10, SGD .03; "
        "a whole run of 100 rounds with an evaluation every 20, from after the imports to the end (bare-careful's workers are up before)",
        task="mnist", partition={"name": "shards", "shards_per_client": 2}, clients=1000, cohort=10, lr=0.03,
        rounds=100, evaluate_every=20, whole=True, warmup=0, goes=3, train=60_000,
    ),
    *(_zero(sampled, registered) for registered in (100, 1000, 10_000, 100_000) for sampled in (10, 100)),
    _scale("S4-1000", 1000, ("ours-vmap",)),
    _scale("S4-1M", 1_000_000, OURS),
    _scale("S4-15M", 15_000_000, ("ours-vmap",)),
)  # fmt: skip

GROUPS = tuple(dict.fromkeys(work.group for work in WORKS))
SYSTEMS = OURS + OTHERS
QUICK = {
    "S1-skew": ("ours-loop", "bare-careful", "pfl"),
    "S2": ("ours-vmap", "bare", "bare-careful"),
    "S3": ("ours-loop", "flower"),
}
"""The systems of a quick run, but for S1, which has all: Ray starts slowly."""


def quick(works: tuple[Work, ...]) -> tuple[Work, ...]:
    """The same works in tiny sizes, one of S3 and one of S4."""
    small: list[Work] = []
    for work in works:
        if any(work.group == done.group for done in small):
            continue
        sizes: dict[str, Any] = {
            "clients": 8,
            "cohort": 4,
            "train": 8 * 20,
            "test": 40,
            "goes": 2,
            "warmup": work.warmup and 1,
        }
        if work.whole:
            sizes |= {"rounds": 2, "evaluate_every": 1, "goes": 1}
        if work.group == "S3":
            sizes |= {"clients": 100, "cohort": 10}
        if work.group == "S4":
            sizes |= {"clients": 1000, "cohort": 20}
        systems = QUICK.get(work.group, work.systems)
        small.append(
            replace(work, **sizes, random=True, systems=systems, what=f"in tiny sizes, a smoke run: {work.what}")
        )
    return tuple(small)
