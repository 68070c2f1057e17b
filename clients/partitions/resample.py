"""Any number of clients out of few samples: each client's are draws with replacement, made when it takes part.

A population of millions for studies of scale: D. J. Beutel et al., "Flower: A Friendly Federated Learning Research
Framework", 2020 ("up to 15M in client size"). arXiv:2007.14390. The drawing is the bootstrap's: B. Efron,
"Bootstrap Methods: Another Look at the Jackknife", Annals of Statistics 7(1), 1979.
"""

from typing import Annotated

from annotated_types import Ge

from fl_sim.learning.task import Task
from fl_sim.population.partition import Partition, Resampled
from fl_sim.registry import offer


@offer("partition")
def resample(task: Task, clients: int, seed: int, samples_per_client: Annotated[int, Ge(1)] = 20) -> Partition:
    """``samples_per_client`` keyed draws a client, with replacement: clients share samples, and may be more than there are samples.

    Nothing is kept of a client: a million cost what ten do. Held-out parts are drawn from a share of the samples that
    no client trains on. Raises ValueError for fewer than 1 client or sample.
    """
    if clients < 1:
        raise ValueError(f"clients = {clients}: must be at least 1")
    if samples_per_client < 1:
        raise ValueError(
            f"partition.samples_per_client = {samples_per_client}: must be at least 1 (no client may be empty)"
        )
    return Resampled(task.num_train, clients, samples_per_client, seed)
