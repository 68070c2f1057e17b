"""Tasks, that is data sets with a loss: one file is one task, with one name on the command line.

A task is a function ``(**own parameters with defaults) -> fl_sim.learning.task.Task`` marked ``@offer("task")``. Inputs
that are pixels are scaled to [0, 1] by the task; the run decides on standardisation and augmentation
(``task.transform``). For a user's own data there are ``from_arrays`` for arrays, ``from_dataset`` for a torch Dataset,
and ``--task images`` for a folder of pictures. Each file names the source of its data.
"""

from clients.tasks.dataset import from_dataset
from fl_sim.learning.arrays import from_arrays

__all__ = ["from_arrays", "from_dataset"]
