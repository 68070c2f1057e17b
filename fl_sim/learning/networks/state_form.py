"""A model in the form of a module's ``state_dict``, and in the form that is trained.

They differ where one tensor has several names (tied weights, a layer that is used twice, a buffer under two names): a
``state_dict`` has each name, a trained tree each tensor once, under its first name. And they differ in complex
numbers: a trained tree has them as pairs of real numbers, with a last axis of 2, so that optimisers, norms, averages
and strategies on NumPy arrays compute with both parts as with any number. torch.optim does the same.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from fl_sim.tree import Tree


@dataclass(frozen=True)
class StateForm:
    """How the names and numbers of a module's ``state_dict`` follow from its trained tree, and the reverse."""

    names: tuple[str, ...]
    """The names of the trained tree: each parameter and persistent buffer once."""
    aliases: Mapping[str, str]
    """Further name of a tensor -> its name in the trained tree."""
    complexes: frozenset[str]
    """The names of the trained tree that are complex numbers in the module."""
    constants: Mapping[str, Tensor]
    """Tensors of the ``state_dict`` that are not trained: persistent names of buffers that are not persistent."""

    @classmethod
    def of(cls, module: nn.Module) -> "StateForm":
        """The form of a module's state."""
        state = {k: v for k, v in module.state_dict().items() if isinstance(v, Tensor)}
        once: Tree = {**dict(module.named_parameters()), **dict(module.named_buffers())}
        first = {id(tensor): name for name, tensor in once.items()}
        every: Tree = {
            **dict(module.named_parameters(remove_duplicate=False)),
            **dict(module.named_buffers(remove_duplicate=False)),
        }
        others = {k: first[id(v)] for k, v in every.items() if k in state and k not in once}
        names = tuple(k for k in state if k in once)
        return cls(
            names,
            {k: name for k, name in others.items() if name in state},
            frozenset(k for k in names if state[k].is_complex()),
            {k: state[k] for k, name in others.items() if name not in state},
        )

    @property
    def is_plain(self) -> bool:
        """Whether both forms are the same."""
        return not (self.aliases or self.complexes or self.constants)

    def tree(self, state: Mapping[str, Tensor]) -> Tree:
        """The trained form of ``state``, which may have either form. Shares its memory."""
        return {
            k: torch.view_as_real(v.resolve_conj()) if v.is_complex() else v
            for k, v in state.items()
            if k not in self.aliases and k not in self.constants
        }

    def state_dict(self, tree: Mapping[str, Tensor]) -> Tree:
        """The names and numbers of the module's ``state_dict``: a strict ``load_state_dict`` takes them.

        Several names of one tensor share its memory. Leaves under other names are left as they are.
        """
        own = {
            k: torch.view_as_complex(v.contiguous()) if k in self.complexes and not v.is_complex() else v
            for k, v in tree.items()
            if k not in self.aliases
        }
        named = {k: own[name] for k, name in self.aliases.items() if name in own}
        return {**own, **named, **self.constants}


def whole_numbers(module: nn.Module) -> dict[str, torch.dtype]:
    """The dtypes of what holds whole numbers or truth values in a module's ``state_dict``, such as counters."""
    state = {k: v for k, v in module.state_dict().items() if isinstance(v, Tensor)}
    return {k: v.dtype for k, v in state.items() if not (v.is_floating_point() or v.is_complex())}
