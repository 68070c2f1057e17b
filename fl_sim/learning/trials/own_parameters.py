"""The parameters that take part in a loss: of the network, and those that the loss keeps for itself."""

from collections.abc import Iterable, Sequence
from typing import Any

from torch import Tensor

from fl_sim.kernels import outputs as nested


def parameters_of(value: Tensor) -> list[Tensor]:
    """The leaf tensors that require a gradient and take part in ``value``, each once."""
    found: dict[int, Tensor] = {}
    seen: set[Any] = set()
    open_nodes: list[Any] = [value.grad_fn]
    while open_nodes:
        node = open_nodes.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        leaf = getattr(node, "variable", None)
        if isinstance(leaf, Tensor):
            found[id(leaf)] = leaf
        open_nodes += [following for following, _ in node.next_functions]
    if value.grad_fn is None and value.requires_grad:
        found[id(value)] = value
    return list(found.values())


def others_than(leaves: Sequence[Tensor], own: Iterable[Tensor]) -> list[Tensor]:
    """Those of ``leaves`` that are none of ``own``."""
    known = {id(x) for x in own}
    return [x for x in leaves if id(x) not in known]


def of_the_loss(parameters: Sequence[Tensor], outputs: Any) -> list[Tensor]:
    """Those of ``parameters`` that take no part in the ``outputs`` of a network."""
    try:
        return others_than(parameters, [x for part in nested.tensors(outputs) for x in parameters_of(part)])
    except TypeError:  # outputs of a class that is not known
        return list(parameters)


def untrained(parameters: Sequence[Tensor], outputs: Any) -> str:
    """Sentences on parameters that take part in a loss but are not the model's, and the cure; empty without any.

    They are the network's, where they take part in its ``outputs`` too, such as those of layers in a plain list.
    """
    of_loss = of_the_loss(parameters, outputs)
    parts = {"the loss": of_loss, "the network": others_than(parameters, of_loss)}
    return "; ".join(_sentence(whose, part) for whose, part in parts.items() if part)


def _sentence(whose: str, parameters: Sequence[Tensor]) -> str:
    shapes = ", ".join(str(tuple(x.shape)) for x in parameters[:3]) + (", ..." if len(parameters) > 3 else "")
    several = "parameters" if len(parameters) > 1 else "parameter"
    used = f"{whose} uses {len(parameters)} {several} (shape {shapes})"
    cure = "make them parameters of the model, or, where they are meant to stay, call .requires_grad_(False)"
    return f"{used} that the model does not have, and that no client trains; {cure}"
