"""What a network may be: kinds that cannot be trained here are refused by name, and changes to others are told."""

from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn.parameter import UninitializedBuffer, UninitializedParameter

from fl_sim.kernels.layers import Dropout
from fl_sim.kernels.module_copies import has_gradient_hook

WRAPPERS = (nn.DataParallel, nn.parallel.DistributedDataParallel)


def problem(module: nn.Module) -> str:
    """Why a network cannot be trained, and the cure; empty where nothing is known to be wrong."""
    for name, layer in module.named_modules():
        where = f"layer {name}" if name else "the network"
        if isinstance(layer, WRAPPERS):
            return f"{where} is wrapped in {type(layer).__name__}, which copies it to GPUs itself; pass its .module"
        if isinstance(layer, torch.jit.ScriptModule):
            return f"{where} was compiled by torch.jit, which keeps its own weights; pass the module it was made from"
        if "quantized" in type(layer).__module__.split("."):
            return f"{where} ({type(layer).__name__}) is quantized and has no weights to train; pass the float module"
    tensors: dict[str, Tensor] = {**dict(module.named_parameters()), **dict(module.named_buffers())}
    for name, x in tensors.items():
        if isinstance(x, UninitializedParameter | UninitializedBuffer):
            return f"{name} of a lazy layer has no shape yet; call the module on a sample before passing it"
        if x.is_meta:
            return f"{name} is on the device meta and has no values; create the module on a real device"
        if x.is_quantized or x.layout != torch.strided:
            kind = "quantized" if x.is_quantized else f"of the layout {x.layout}"
            return f"{name} is {kind}; it must be an ordinary tensor"
    if infinite := [name for name, x in module.state_dict().items() if not _is_finite(x)]:
        cure = "register a constant, such as a mask, with persistent=False, or use a large number such as -1e9"
        return f"{', '.join(infinite)} holds NaN or infinity, and is averaged over clients; {cure}"
    for name, parameter in module.named_parameters():
        if has_gradient_hook(parameter):
            cure = "change the gradient in the strategy's method gradient, or by a layer's hook"
            return f"parameter {name} has a gradient hook (register_hook), which would not be called; {cure}"
    return _sharing(module, tensors) or _frozen(module)


def _is_finite(x: object) -> bool:
    numbers = isinstance(x, Tensor) and (x.is_floating_point() or x.is_complex()) and x.element_size() > 1
    return not numbers or bool(torch.isfinite(x).all())  # type: ignore[arg-type]


def _sharing(module: nn.Module, tensors: Mapping[str, Tensor]) -> str:
    """Why tensors that share memory without being one tensor cannot be trained."""
    parameters = {p.data_ptr(): name for name, p in reversed([*module.named_parameters()]) if p.numel()}
    for name, x in tensors.items():
        other = parameters.get(x.data_ptr(), name) if x.numel() else name
        if other != name:
            cure = f"assign the same Parameter to both ({name} = {other}), or give one a clone"
            return f"{other} and {name} are two tensors that share memory, and would be trained apart; {cure}"
    return ""


def written(module: nn.Module, parameters: Collection[str], hidden: Collection[str]) -> str:
    """What a network's forward writes into, and the cure; empty where it writes into nothing.

    ``parameters`` and ``hidden`` are names: of parameters, and of buffers with ``persistent=False``.
    """
    limited = {
        f"{name}.weight".lstrip("."): layer
        for name, layer in module.named_modules()
        if isinstance(layer, nn.Embedding | nn.EmbeddingBag) and layer.max_norm is not None
    }
    own = [*sorted(parameters), *(f"{name} (persistent=False)" for name in sorted(hidden))]
    if not own:
        return ""
    what = f"its forward writes into {', '.join(own)}, where the next client would find it"
    if rows := [name for name in sorted(parameters) if name in limited]:
        limit = f"{type(limited[rows[0]]).__name__}(max_norm=...), which shortens rows of {rows[0]} in each forward"
        shorter = "e * MAX / e.norm(dim=-1, keepdim=True).clamp(min=MAX)"
        return f"{what}: {limit}; leave max_norm out, and shorten what the layer returns: {shorter}"
    if parameters:
        return f"{what}; compute a new tensor (w.clamp(0) instead of w.clamp_(0))"
    return f"{what}; compute a new tensor, or register it as a persistent buffer"


def _frozen(module: nn.Module) -> str:
    """Why a network without a parameter that requires a gradient cannot be trained."""
    parameters = [*module.parameters()]
    if any(p.requires_grad for p in parameters):
        return ""
    if not parameters:
        return "the network has no parameters, so that there is nothing to train"
    return f"all {len(parameters)} parameters are frozen (requires_grad is False), so that there is nothing to train"


def notes(module: nn.Module, dtype: torch.dtype, passed: bool) -> list[str]:
    """What a run does with a network that its user may not expect, one sentence each.

    Parameters
    ----------
    dtype : torch.dtype
        Of the run.
    passed : bool
        Whether the network is a module that was passed, not one that a function makes.
    """
    found = []
    if passed:
        found.append("the run starts from the weights of the module that was passed; runs with other seeds do too")
    kinds = {p.dtype for p in module.parameters() if p.is_floating_point() and p.dtype.itemsize != dtype.itemsize}
    if narrow := sorted(str(kind).removeprefix("torch.") for kind in kinds - {torch.float32}):
        chosen = str(dtype).removeprefix("torch.")
        found.append(f"the network's parameters of type {', '.join(narrow)} become {chosen}, the dtype of the run")
    still = [name for name, layer in module.named_modules() if name and not layer.training] if module.training else []
    if still:
        what = f"the layers {', '.join(still[:5])}{' and others' if len(still) > 5 else ''} are in evaluation mode"
        found.append(f"{what}; clients train with every layer in training mode (override train() to keep a layer out)")
    return found


def attributes(module: nn.Module) -> dict[str, object]:
    """Plain values and tensors that layers keep as attributes, by name; lists and dicts by their length.

    A tensor stands beside its id, so that equal values are the same object, and no other object has its id. Buffers
    with ``persistent=False`` count as attributes. Left out are weights that a hook computes before each use
    (``torch.nn.utils.weight_norm`` and the like).
    """
    found: dict[str, object] = {}
    for name, layer in module.named_modules():
        for key, value in () if isinstance(layer, Dropout) else vars(layer).items():
            if key.startswith("_") or key == "training" or _is_computed(layer, key):
                continue
            if isinstance(value, bool | int | float | str | None):
                found[f"{name}.{key}".lstrip(".")] = value
            elif isinstance(value, list | dict):
                found[f"{name}.{key}".lstrip(".")] = len(value)
            elif isinstance(value, Tensor):
                found[f"{name}.{key}".lstrip(".")] = id(value), value
    persistent = module.state_dict().keys()
    found |= {name: (id(value), value) for name, value in module.named_buffers() if name not in persistent}
    return found


def _is_computed(layer: nn.Module, key: str) -> bool:
    own = {name for name, _ in layer.named_parameters(recurse=False)}
    return not own.isdisjoint({f"{key}_g", f"{key}_orig"})


def changed(before: Mapping[str, object], after: Mapping[str, object]) -> str:
    """A sentence on attributes that a network's forward changed; empty where it changed none."""
    names = sorted(k for k in {*before, *after} if before.get(k) != after.get(k))
    if not names:
        return ""
    what = f"the network's forward changes its attributes {', '.join(names)}, which are no persistent buffers"
    return f"{what}: clients that train in one process share them, and other processes have their own"


@contextmanager
def calls_of(module: nn.Module) -> Iterator[set[str]]:
    """Within it, the set that is yielded gets the names of those layers of a module that are called."""
    called: set[str] = set()

    def note(name: str) -> Callable[[nn.Module, object], None]:
        return lambda layer, inputs: called.add(name)

    hooks = [layer.register_forward_pre_hook(note(name)) for name, layer in module.named_modules() if name]
    try:
        yield called
    finally:
        for hook in hooks:
            hook.remove()


def lazy_tensors(module: nn.Module) -> Iterator[str]:
    """The names of parameters and buffers that have no shape yet."""
    for name, x in (*module.named_parameters(), *module.named_buffers()):
        if isinstance(x, UninitializedParameter | UninitializedBuffer):
            yield name
