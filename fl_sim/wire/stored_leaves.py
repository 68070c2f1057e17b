"""Tensors as a safetensors file takes them, which lacks complex numbers of two doubles and sorts names."""

from collections.abc import Collection, Mapping

import torch
from torch import Tensor

from fl_sim.tree import Tree


def storable(leaves: Mapping[str, Tensor], copy: bool = True) -> tuple[Tree, list[str]]:
    """(copies on the CPU that share no memory; the names of complex leaves, which are pairs of real numbers there).

    The format refuses tensors that share memory. ``copy`` is false where these do not, and are not written to.
    """
    pairs = [name for name, x in leaves.items() if x.is_complex()]
    real = {k: torch.view_as_real(x.resolve_conj()) if x.is_complex() else x for k, x in leaves.items()}
    own = {k: x.detach().resolve_neg().cpu().contiguous() for k, x in real.items()}
    return {k: x.clone() for k, x in own.items()} if copy else own, pairs


def restored(leaves: Mapping[str, Tensor], pairs: Collection[str]) -> Tree:
    """The tensors that ``storable`` got; ``pairs`` as it returned them."""
    return {k: torch.view_as_complex(x) if k in pairs else x for k, x in leaves.items()}
