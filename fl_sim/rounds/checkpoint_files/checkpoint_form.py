"""A checkpoint as the bytes of one safetensors file.

Its tensors are ``model/NAME``, ``state/GROUP/NUMBER`` (the clients' states; clients whose states have the same form
are stacked, so that a million clients are a few tensors), ``strategy/NUMBER`` and perhaps ``pickle``. Its metadata
``checkpoint`` is JSON: the version of this form (``format``), round, positions in the log, plain facts, and the
strategy's attributes (``fl_sim.rounds.checkpoint_files.kept_attributes``).

Where the states are in segments (``fl_sim.states``), a tensor ``states`` is their index, and the header names the
segments (``segments``); ``format`` is then STORED.

Files without ``format`` are of an older form, in which all attributes of the strategy are one pickle.

Legend: C clients of a group.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load as read_tensors
from safetensors.torch import save as write_tensors

from fl_sim.errors import ConfigError
from fl_sim.rounds.checkpoint_files import pickled_part
from fl_sim.rounds.checkpoint_files.attribute_reader import Reader
from fl_sim.rounds.checkpoint_files.attribute_writer import Writer
from fl_sim.rounds.checkpoint_files.kept_attributes import Built
from fl_sim.states.state_record import placed
from fl_sim.states.stored_states import StoredStates
from fl_sim.tree import Tree
from fl_sim.wire.stored_leaves import restored, storable

FORMAT, STORED = 2, 3
"""Versions of the form: with all states inside, with an index of states. A new one where older code could no longer
read a file."""
UNREADABLE = (ArithmeticError, AttributeError, LookupError, RecursionError, RuntimeError, SafetensorError, TypeError)
"""What reading a file raises, besides ValueError, that no checkpoint was written as."""


class Malformed(ValueError):
    """Bytes that are no checkpoint."""


@dataclass(frozen=True)
class Checkpoint:
    """A run between two rounds."""

    round: int
    """The last round that is done; 0: the initial model was evaluated."""
    model: Tree
    model_round: int
    """The round that produced ``model``."""
    strategy: Mapping[str, Any] = field(default_factory=dict)
    """The strategy's attributes, which ``kept_attributes.restore`` gives to a strategy."""
    states: Mapping[int, Tree] = field(default_factory=dict)
    """Client id -> its state."""
    positions: Mapping[str, int] = field(default_factory=dict)
    """Bytes of each log file that belong to the rounds done."""
    facts: Mapping[str, Any] = field(default_factory=dict)
    """Plain values: versions, counters, seconds so far."""
    built: Built | None = field(default=None, compare=False, repr=False)
    """What the strategy's constructor made, by which functions are known; needed for writing only."""
    untrusted: str = ""
    """Why ``strategy`` lacks the pickled attributes of the file; empty where it has all."""
    line: str = ""
    """The line of ``round`` in ``rounds.jsonl``, which ends at its position, as a run with more rounds has it.

    The file may have another one: that of a run's last round has its final evaluation too. Empty in older files.
    """


def to_bytes(checkpoint: Checkpoint) -> bytes:
    """The content of a checkpoint's file. Raises what pickle raises for an odd attribute of the strategy."""
    writer = Writer()
    rows, odd = writer.attributes(checkpoint.strategy, checkpoint.built)
    header: dict[str, Any] = {"format": FORMAT, "round": checkpoint.round, "model_round": checkpoint.model_round}
    header |= {"positions": dict(checkpoint.positions), "facts": dict(checkpoint.facts), "line": checkpoint.line}
    header |= {"model": list(checkpoint.model), "strategy": json.dumps(rows)}
    tensors = {f"model/{k}": v for k, v in checkpoint.model.items()}
    if isinstance(checkpoint.states, StoredStates):
        header |= {"format": STORED, "segments": checkpoint.states.named}
        stacked = {"states": checkpoint.states.index()}
    else:
        stacked, header["states"] = stacked_states(checkpoint.states)
    own, pairs = storable({**tensors, **writer.tensors})
    stacked, more = storable(stacked, copy=False)
    own |= stacked
    if odd:
        data = pickled_part.write(odd, writer.objects)
        own["pickle"] = torch.frombuffer(bytearray(data), dtype=torch.uint8)
        header |= {"odd": sorted(odd), "hmac": pickled_part.sign(data, header["strategy"])}
    return write_tensors(own, {"checkpoint": json.dumps({**header, "pairs": pairs + more})})


def stacked_states(states: Mapping[int, Tree]) -> tuple[Tree, list[dict[str, Any]]]:
    """(the states' leaves by name, each (C, ...); by group, its clients and the names of its leaves)."""
    groups: dict[tuple[object, ...], list[int]] = {}
    for client in sorted(states):
        form = tuple((k, v.dtype, v.shape, v.device) for k, v in states[client].items())
        groups.setdefault(form, []).append(client)
    tensors, rows = {}, list[dict[str, Any]]()
    for clients in groups.values():
        names = list(states[clients[0]])
        for number, name in enumerate(names):
            leaves = [states[client][name].detach() for client in clients]
            tensors[f"state/{len(rows)}/{number}"] = torch.stack(leaves)
        devices = [states[clients[0]][name].device.type for name in names]
        rows.append({"clients": clients, "leaves": names} | ({"devices": devices} if {*devices} - {"cpu"} else {}))
    return tensors, rows


def segments_in(file: IO[bytes]) -> set[int]:
    """The segments that the checkpoint in a file names; none where its header is damaged. Raises OSError."""
    try:
        header = _header(file.read(int.from_bytes(file.read(8), "little")))
        return set(map(int, header.get("segments", ())))
    except (ValueError, OverflowError, *UNREADABLE):
        return set()


def _header(data: bytes) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(json.loads(data)["__metadata__"]["checkpoint"])
    return found


def from_bytes(data: bytes, trust_pickle: bool = False, folder: Path = Path()) -> Checkpoint:
    """The checkpoint in a file; ``trust_pickle`` as in ``fl_sim.rounds.checkpoint.read``.

    ``folder`` : that of the states that it names, which are read when they are asked for.

    Raises Malformed, and ConfigError for a version that this code does not know, or a pickle that cannot be read here.
    """
    try:
        length = int.from_bytes(data[:8], "little")
        header = _header(data[8 : 8 + length])
        form = header.get("format", 1)
        if form not in (1, FORMAT, STORED):
            raise ConfigError(
                f"a checkpoint has the format {form!r}, and this version knows 1 to {STORED}; update the project"
            )
        tensors = restored(read_tensors(data), set(header.get("pairs", ())))
        states: Mapping[int, Tree]
        model, states = (_old_trees if form == 1 else _trees)(header, tensors)
        if form == STORED:
            states = StoredStates.of_index(folder, tensors["states"])
        strategy, untrusted = (_old_strategy if form == 1 else _strategy)(header, tensors, trust_pickle)
        positions = {str(k): int(v) for k, v in header["positions"].items()}
        rounds = int(header["round"]), int(header["model_round"])
        facts: Mapping[str, Any] = dict(header["facts"])
        line = str(header.get("line", ""))
        if line and ("\n" in line or json.loads(line)["round"] != rounds[0]):
            raise Malformed(f"its line of rounds.jsonl is not that of round {rounds[0]}")
    except ConfigError:
        raise
    except (ValueError, *UNREADABLE) as error:
        raise Malformed(f"it is no checkpoint of this project ({type(error).__name__}: {error})") from error
    return Checkpoint(rounds[0], model, rounds[1], strategy, states, positions, facts, untrusted=untrusted, line=line)


def _trees(header: Mapping[str, Any], tensors: Tree) -> tuple[Tree, dict[int, Tree]]:
    states: dict[int, Tree] = {}
    for group, row in enumerate(header.get("states", ())):
        leaves = [tensors[f"state/{group}/{number}"] for number in range(len(row["leaves"]))]
        devices = row.get("devices", ["cpu"] * len(leaves))
        for place, client in enumerate(row["clients"]):  # cloned, so that no state keeps those of others in memory
            own = [placed(x[place].clone(), device) for x, device in zip(leaves, devices, strict=True)]
            states[client] = dict(zip(row["leaves"], own, strict=True))
    return {k: tensors[f"model/{k}"] for k in header["model"]}, dict(sorted(states.items()))


def _strategy(header: Mapping[str, Any], tensors: Tree, trust_pickle: bool) -> tuple[dict[str, Any], str]:
    """(the strategy's attributes, why the pickled ones are not among them)."""
    reader = Reader(tensors)
    attributes = reader.attributes(json.loads(header["strategy"]))
    if "pickle" not in tensors:
        return attributes, ""
    data = tensors["pickle"].numpy().tobytes()
    why = "" if trust_pickle else pickled_part.why_not(data, header["strategy"], str(header.get("hmac", "")))
    if why:
        return attributes, _untrusted(f"the attributes {', '.join(map(str, header['odd']))}", why)
    return {**attributes, **_unpickled(data, reader.objects)}, ""


def _untrusted(what: str, why: str) -> str:
    cure = "add --trust_pickle only if you trust who wrote it"
    return f"it holds {what} of the strategy as a pickle, which can run any code when it is read, and {why}; {cure}"


def _unpickled(data: bytes, objects: list[object]) -> dict[str, Any]:
    try:
        return pickled_part.read(data, objects)
    except Exception as error:  # of the classes that it names, which are the user's
        why = f"{type(error).__name__}: {error}"
        raise ConfigError(
            f"the pickled part of a checkpoint cannot be read ({why}); its modules must be there"
        ) from error


# The older form -----------------------------------------------------------------------------------------------------


def _old_trees(header: Mapping[str, Any], tensors: Tree) -> tuple[Tree, dict[int, Tree]]:
    order = {key: number for number, key in enumerate(header["order"])}
    states: dict[int, Tree] = {client: {} for client in header["clients"]}
    for name, value in tensors.items():
        if name.startswith("state/"):
            _, client, key = name.split("/", 2)
            states[int(client)][key] = value
    model = {k.removeprefix("model/"): v for k, v in tensors.items() if k.startswith("model/")}
    model, *ordered = ({k: t[k] for k in sorted(t, key=order.__getitem__)} for t in (model, *states.values()))
    return model, dict(zip(states, ordered, strict=True))


def _old_strategy(header: Mapping[str, Any], tensors: Tree, trust_pickle: bool) -> tuple[dict[str, Any], str]:
    if not trust_pickle:
        return {}, _untrusted("all attributes", "it is of an older version, which signed nothing")
    return _unpickled(tensors["strategy"].numpy().tobytes(), []), ""
