"""Any number of clients from few samples: each client's samples are drawn with replacement, whenever it takes part.

Populations of millions for studies of scale: D. J. Beutel et al., "Flower: A Friendly Federated Learning Research
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
    """``samples_per_client`` draws with replacement for each client: clients share samples, and may outnumber them.

    Nothing is stored per client, so that a million clients take the memory of ten. Held-out parts are drawn from
    reserved samples, which no client trains on. Raises ValueError for fewer than 1 client or fewer than 1 sample per
    client.
    """
    if clients < 1:
        raise ValueError(f"clients = {clients}: must be at least 1")
    if samples_per_client < 1:
        raise ValueError(
            f"partition.samples_per_client = {samples_per_client}: must be at least 1 (no client may be empty)"
        )
    return Resampled(task.num_train, clients, samples_per_client, seed)
