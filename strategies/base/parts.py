"""Parts of a network by the names of its layers: the head, which an algorithm treats apart, and the rest, the body."""

from collections.abc import Callable, Collection

from torch import Tensor

from fl_sim import Batch, Loss
from fl_sim.errors import ConfigError
from fl_sim.tree import Tree

Gradient = Callable[[Tree, Batch], tuple[Tree, Tensor, Tree]]
"""``(model, batch) -> (gradient, loss (), new buffers)``."""


def leaves_of(loss: Loss, layers: str, setting: str = "strategy.head") -> tuple[str, ...]:
    """The leaves (parameters and buffers) of the layers that a setting names, in the order of the model.

    Parameters
    ----------
    layers : str
        Empty: the last layer, which is the one with the last leaf that trains. ``all`` and ``none``: every layer, or
        none, unless a layer has this name. Else names of layers or leaves with commas, such as ``projection,7``; a name
        stands for all that it contains.
    setting : str
        The setting's name in an error.

    Raises
    ------
    ConfigError
        For a name that neither a layer nor a leaf has.
    """
    names = loss.form.names
    if not layers:
        owner = loss.trainable[-1].rpartition(".")[0]
        return tuple(k for k in names if k.rpartition(".")[0] == owner)
    found: set[str] = set()
    for layer in (text.strip() for text in layers.split(",")):
        inside = {k for k in names if k == layer or k.startswith(f"{layer}.")}
        if not inside and layer not in ("all", "none"):
            known = dict.fromkeys(k.rpartition(".")[0] or k for k in names)
            cure = f"the network has {', '.join([*known][:20])}; or give all, none, or nothing for the last layer"
            raise ConfigError(f"{setting} = {layers!r}: no layer of this network has the name {layer!r}; {cure}")
        found |= inside or (set(names) if layer == "all" else set())
    return tuple(k for k in names if k in found)


def only(gradient: Gradient, leaves: Collection[str]) -> Gradient:
    """``gradient`` without the leaves that are not in ``leaves``, so that an optimiser leaves those as they are."""

    def of_part(model: Tree, batch: Batch) -> tuple[Tree, Tensor, Tree]:
        grads, value, buffers = gradient(model, batch)
        return {k: g for k, g in grads.items() if k in leaves}, value, buffers

    return of_part
