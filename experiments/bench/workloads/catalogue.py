"""The workloads of the benchmark, S1 to S4 and S7, as plain values that can be sent to child processes as JSON."""

from dataclasses import asdict, dataclass, field, replace
from typing import Any

OURS = ("ours-loop", "ours-vmap", "ours-ray")
"""This simulator, with each of its engines."""
OTHERS = ("bare", "bare-careful", "flower", "flower-careful", "pfl", "blazefl")
"""The systems that it is compared with."""
STATES = ("stateless", "stateful")
"""This simulator, whose clients keep nothing from round to round, or a state of the model's size."""


@dataclass(frozen=True)
class Work:
    """One workload. A *go* (repetition) is the timed unit: one round, or one whole run in a process of its own."""

    name: str
    """Its unique name in the results."""
    group: str
    """The name that ``--work`` selects by; several workloads of different sizes can share it."""
    what: str
    """One line that describes it to the reader, the same for a whole group."""
    variant: str = ""
    """The property in which it differs from the other workloads of its group."""
    task: str = ""
    """cifar10 or mnist; empty if the clients do nothing."""
    model: str = "lr"
    partition: dict[str, object] = field(default_factory=lambda: {"name": "iid"})
    clients: int = 0
    """Registered clients."""
    cohort: int = 0
    """Clients sampled each round."""
    batch: int = 10
    lr: float = 0.1
    standardize: bool = False
    """Whether the pixels of each channel are standardised."""
    rounds: int = 1
    """Rounds in each repetition."""
    evaluate_every: int = 0
    """Rounds between two evaluations in a whole run; 0: only one evaluation, after the last repetition, not timed."""
    whole: bool = False
    """Whether a repetition is a whole run, from after the imports to the end, in a new process."""
    warmup: int = 1
    """Repetitions before the timed ones."""
    goes: int = 5
    """Timed repetitions."""
    systems: tuple[str, ...] = OURS + OTHERS
    """The systems that can run it."""
    reference: str = "bare-careful"
    """The system whose seconds divide those of the others; empty: none."""
    limit_s: float = 900.0
    """Longest time that a child process may take for one answer."""
    train: int = 0
    """Training samples, where the arrays are random."""
    test: int = 10_000
    """Test samples, where the arrays are random."""
    random: bool = False
    """Whether to use random arrays even if the real data are available."""

    def to_dict(self) -> dict[str, object]:
        """All fields as a dict that can be written as JSON."""
        return asdict(self)


def _idle_clients(sampled: int, registered: int) -> Work:
    return Work(
        f"S3-{sampled}-of-{registered}",
        "S3",
        "clients that do nothing, by number of clients sampled a round and registered",
        f"{sampled} of {registered}",
        clients=registered,
        cohort=sampled,
        warmup=2,
        goes={10_000: 8, 100_000: 3}.get(registered, 20),
        systems=("ours-loop", "ours-vmap", "ours-ray", "flower"),
        reference="flower",
    )


def _many_clients(name: str, registered: int, systems: tuple[str, ...]) -> Work:
    return Work(
        name,
        "S4",
        "many registered clients, 1000 a round, 20 rounds of MNIST logistic regression, 20 samples a client drawn with "
        "replacement; a whole run, from after the imports to the end",
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
        "S1", "S1",
        "CNN of 1.6 M parameters on CIFAR-10: 1000 clients x 50 images IID, 50 a round, batches of 10, SGD .1, 1 epoch",
        task="cifar10", model="cnn", clients=1000, cohort=50, standardize=True, train=50_000,
    ),
    Work(
        "S1-skew", "S1-skew", "the same CNN: 100 clients by Dirichlet(0.1), 10 a round, batches of 32",
        task="cifar10", model="cnn", partition={"name": "dirichlet", "alpha": 0.1}, clients=100, cohort=10, batch=32,
        standardize=True, train=50_000,
    ),
    Work(
        "S2", "S2", "logistic regression on MNIST: 1000 clients of 2 shards, 10 a round, batches of 10, SGD .03; "
        "a whole run of 100 rounds with an evaluation every 20, from after the imports to the end "
        "(bare-careful's workers are up before)",
        task="mnist", partition={"name": "shards", "shards_per_client": 2}, clients=1000, cohort=10, lr=0.03,
        rounds=100, evaluate_every=20, whole=True, warmup=0, goes=3, train=60_000,
    ),
    *(_idle_clients(sampled, registered) for registered in (100, 1000, 10_000, 100_000) for sampled in (10, 100)),
    _many_clients("S4-1000", 1000, ("ours-vmap",)),
    _many_clients("S4-1M", 1_000_000, OURS),
    _many_clients("S4-15M", 15_000_000, ("ours-vmap",)),
    Work(
        "S7", "S7", "clients with a state: LeNet on CIFAR-10, 100 000 clients of 20 images drawn with replacement, "
        "100 a round, batches of 10; in 100 rounds 10 000 clients leave a state, in those timed some of them train and "
        "get it again; a checkpoint now and then, as in every run",
        task="cifar10", model="lenet", clients=100_000, cohort=100, lr=0.03, train=50_000, warmup=100, goes=20,
        partition={"name": "resample", "samples_per_client": 20}, systems=STATES, reference="stateless",
    ),
)  # fmt: skip

GROUPS = tuple(dict.fromkeys(work.group for work in WORKS))
"""The names that ``--work`` accepts."""
SYSTEMS = OURS + STATES + OTHERS
"""The names that ``--systems`` accepts."""
QUICK = {
    "S1-skew": ("ours-loop", "bare-careful", "pfl"),
    "S2": ("ours-vmap", "bare", "bare-careful"),
    "S3": ("ours-loop", "flower"),
}
"""The systems of a quick run, fewer than usual because Ray starts slowly; S1 has all."""


def quick(works: tuple[Work, ...]) -> tuple[Work, ...]:
    """The same workloads in tiny sizes on random arrays, one of each group."""
    small: list[Work] = []
    for work in works:
        if any(work.group == other.group for other in small):
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
