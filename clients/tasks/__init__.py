"""What is learnt: one file, one task, one name on the command line.

A task is a function ``(**own parameters with defaults) -> fl_sim.learning.task.Task`` marked ``@offer("task")``. It scales
its inputs to [0, 1] where they are pixels; standardising and augmenting are the run's affair (``task.transform``).
A user's own data: ``from_arrays`` for arrays, ``from_dataset`` for a torch Dataset, ``--task images`` for a folder
of pictures. No paper; each file names its own.
"""

from clients.tasks.dataset import from_dataset
from fl_sim.learning.arrays import from_arrays

__all__ = ["from_arrays", "from_dataset"]
