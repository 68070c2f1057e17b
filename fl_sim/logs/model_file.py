"""``model.safetensors``: a global model with its digest, which is checked when the model is read.

The file has each name of the user's module, so that ``load_state_dict`` takes it. Its metadata are ``round``,
``digest`` (of the file's tensors), ``trained`` (the round's digest in ``rounds.jsonl``; another one where tied weights
have several names), and ``complex128``, the tensors that are pairs of real numbers, because the format lacks the type.
"""

import json
import warnings
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from fl_sim.tree import Tree, digest


def write(file: Path, state: Mapping[str, Tensor], server_round: int, trained: str, same: bool) -> None:
    """Write a model.

    Parameters
    ----------
    file : Path
        A new file.
    state : Mapping
        The module's ``state_dict``.
    server_round : int
        The round that produced the model.
    trained : str
        The digest of the trained tree, as the round log has it; empty where it has none.
    same : bool
        Whether ``state`` is the trained tree, so that ``trained`` is its digest too.
    """
    own = {k: v.detach().cpu().contiguous().clone() for k, v in state.items()}  # the format refuses shared memory
    metadata = {"round": str(server_round), "digest": trained if same and trained else digest(own)}
    if trained:
        metadata["trained"] = trained
    if pairs := [k for k, v in own.items() if v.dtype == torch.complex128]:
        own |= {k: torch.view_as_real(own[k]) for k in pairs}
        metadata["complex128"] = json.dumps(pairs)
    save_file(own, file, metadata=metadata)
    _sort_metadata(file)


def _sort_metadata(file: Path) -> None:
    """Write the metadata in the order of their names, so that equal models are equal bytes."""
    with file.open("r+b") as opened:
        length = int.from_bytes(opened.read(8), "little")
        header = json.loads(opened.read(length))
        header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
        text = json.dumps(header, ensure_ascii=False, separators=(",", ":")).encode().ljust(length)
        if len(text) == length:  # else names have characters that the library escapes in another way
            opened.seek(8)
            opened.write(text)


def read(file: Path, logged: Mapping[int, str]) -> Tree:
    """The model, on the CPU.

    ``logged`` : the digests that the round log has by round. Raises ValueError where there is no model, or its digest
    is another one. Files of older versions have no digest of their own; they are compared with ``logged``.
    """
    try:
        with safe_open(file, "pt") as opened:
            facts: dict[str, str] = opened.metadata() or {}
            stored = {k: opened.get_tensor(k) for k in opened.keys()}  # noqa: SIM118 - it is no mapping
        pairs = json.loads(facts.get("complex128", "[]"))
        model = {k: torch.view_as_complex(v) if k in pairs else v for k, v in stored.items()}
        of_log = logged.get(int(facts.get("round", -1)))
    except (OSError, SafetensorError, ValueError, RuntimeError, TypeError) as error:
        raise ValueError(f"{file}: no model can be read ({error})") from error
    found = digest(model)
    if "digest" in facts:
        right = found == facts["digest"] and of_log in (None, facts.get("trained", of_log))
    else:
        right = of_log is None or found == of_log
        if not right and _has_twins(model):  # the digest of the log may be that of the first names alone
            warnings.warn(f"{file}: is of an older version and has equal tensors; it cannot be checked", stacklevel=3)
            return model
    if not right:
        expected = facts.get("digest", of_log) if found != facts.get("digest") else of_log
        what = f"its digest is {found[:12]}..., and {str(expected)[:12]}... is recorded for it"
        raise ValueError(
            f"{file}: {what}; it was damaged or replaced: copy it again, or --resume the run to rewrite it"
        )
    return model


def _has_twins(model: Tree) -> bool:
    """Whether two tensors are equal, as those of tied weights are."""
    bodies = [
        (tuple(x.shape), x.dtype, x.contiguous().view(-1).view(torch.uint8).numpy().tobytes()) for x in model.values()
    ]
    return len(set(bodies)) < len(bodies)
