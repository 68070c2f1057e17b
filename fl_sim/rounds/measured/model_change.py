"""What a server's step made of the global model: how far it moved, and whether it may be the next one."""

import math

from flwr.app import ArrayRecord

from fl_sim import tree
from fl_sim.tree import Tree
from fl_sim.wire import records


def change_of(new: Tree, old: Tree, arrays: ArrayRecord, any_form: bool) -> tuple[float, str]:
    """(the norm of the change, 0 where the forms differ; why ``new`` must not be the global model, or "").

    Parameters
    ----------
    new, old : Tree
        The model after the step, and before it.
    arrays : ArrayRecord
        The record of ``new``, with the arrays that torch cannot hold.
    any_form : bool
        Whether a model of another form than ``old`` is right: that of a foreign strategy.
    """
    same = new.keys() == old.keys() and all(x.shape == old[k].shape for k, x in new.items())
    change = float(tree.norm(tree.sub(new, old))) if same else 0.0
    finite = same and math.isfinite(change)  # a finite norm of the change means finite numbers
    if finite and all(x.dtype == old[k].dtype for k, x in new.items()):
        return change, ""
    return change, records.problem(arrays, None if any_form else old, new, finite)
