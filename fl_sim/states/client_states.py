"""The states of a grid's clients, and what they were when the last round ended."""

from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, MutableMapping
from pathlib import Path

from fl_sim import tree
from fl_sim.states.segment_files import FOLDER, Place, Segments, read
from fl_sim.states.stored_states import StoredStates
from fl_sim.tree import Tree

MEMORY_BYTES = 1 << 24
"""Bytes of states that a run with a folder holds in memory, and writes into each of its checkpoints; where its clients
have more, all of them are stored in segments."""


class ClientStates(MutableMapping[int, Tree]):
    """Client id -> its state. Keeps what it held when ``mark`` was called last, at the cost of the changes since.

    The states are in memory until ``keep_in`` has named a folder and they are larger than MEMORY_BYTES; from then on
    they are in segments, and to read one may raise Damaged, to set one OSError (a full disk).
    """

    def __init__(self) -> None:
        self._held: dict[int, Tree | Place] = {}
        self._before: dict[int, Tree | Place | None] = {}
        self._bytes = 0
        """Of the states in memory, where there is a folder that they could move to."""
        self._folder: Path | None = None
        self._segments: Segments | None = None
        """Where the states are; None: in memory."""
        self._live: Counter[int] = Counter()
        """Bytes of the states that are held, by segment."""

    def keep_in(self, run_folder: Path) -> None:
        """Store states in this run's folder where they become large. Nothing is written until then.

        States that an earlier run of the same grid has stored in its folder are copied.
        """
        old = self.snapshot()
        self._folder = run_folder / FOLDER
        if isinstance(old, StoredStates):
            self.close()
            self._segments = None
            self._held.clear()
            self._live.clear()
            self.restore(old)
        else:
            self._bytes = sum(map(_size, self._held.values()))
            self._store_large()

    # The mapping ----------------------------------------------------------------------------------------------------

    def __getitem__(self, client: int) -> Tree:
        held = self._held[client]
        if isinstance(held, Place):
            assert self._folder is not None
            return read(self._folder, client, held)
        return held

    def __setitem__(self, client: int, state: Tree) -> None:
        old = self._held.get(client)
        new = state if self._segments is None else self._segments.append(client, state)
        self._before.setdefault(client, old)
        self._held[client] = new
        if isinstance(new, Place):
            self._count(old, -1)
            self._count(new, 1)
        elif self._folder is not None:
            self._bytes += _size(new) - _size(old)
            self._store_large()

    def __delitem__(self, client: int) -> None:
        old = self._held.pop(client)
        self._before.setdefault(client, old)
        self._count(old, -1)
        self._bytes -= _size(old) if self._folder is not None else 0

    def __iter__(self) -> Iterator[int]:
        return iter(self._held)

    def __len__(self) -> int:
        return len(self._held)

    def __contains__(self, client: object) -> bool:
        return client in self._held

    def part(self, clients: Iterable[int]) -> Mapping[int, Tree]:
        """The states of those of the clients that have one, as they are now, whatever is set later."""
        return self._mapping({client: self._held[client] for client in clients if client in self._held})

    # Rounds and checkpoints -----------------------------------------------------------------------------------------

    def mark(self) -> None:
        """Keep what is held now."""
        self._before.clear()

    @property
    def marked(self) -> Mapping[int, Tree]:
        """What was held when ``mark`` was called last."""
        before = {**self._held, **self._before}
        return self._mapping({client: held for client, held in before.items() if held is not None})

    def snapshot(self, compact: bool = False) -> Mapping[int, Tree]:
        """What is held now, for a checkpoint.

        ``compact`` : first move states out of segments of which more than half is no longer held, so that these can be
        deleted once no older checkpoint names them. Each byte that is moved was preceded by one that was replaced.
        """
        if compact and self._segments is not None:
            self._compact(self._segments)
        return self._mapping(dict(self._held))

    def restore(self, states: Mapping[int, Tree]) -> None:
        """Hold the states of a checkpoint: by reference where they are in this run's folder, else as copies."""
        folder = self._folder
        if isinstance(states, StoredStates) and folder is not None and _same(folder, states.folder):
            self._segments = self._segments or Segments(folder)
            self._held.update(states.places)
            for place in states.places.values():
                self._count(place, 1)
        else:
            for client in states:
                self[client] = tree.clone(states[client])
        self.mark()

    def forget_all_but(self, named: Collection[int]) -> None:
        """Delete the segments that neither ``named`` nor a state that is held, or was when last marked, is in."""
        if self._folder is not None and self._folder.is_dir():
            before = {place.segment for place in self._before.values() if isinstance(place, Place)}
            (self._segments or Segments(self._folder)).remove({*named, *before, *(+self._live)})

    def close(self) -> None:
        """Close the files that are open for writing."""
        if self._segments is not None:
            self._segments.close()

    def _mapping(self, held: dict[int, Tree | Place]) -> Mapping[int, Tree]:
        if self._segments is None:
            return {client: state for client, state in held.items() if not isinstance(state, Place)}
        places = {client: place for client, place in held.items() if isinstance(place, Place)}
        return StoredStates(self._segments.folder, places, self._segments)

    def _count(self, held: Tree | Place | None, sign: int) -> None:
        if isinstance(held, Place):
            self._live[held.segment] += sign * held.length

    def _store_large(self) -> None:
        """Move all states into segments where there is a folder and they have become large."""
        if self._segments is not None or self._folder is None or self._bytes <= MEMORY_BYTES:
            return
        segments = Segments(self._folder)

        def stored(client: int, held: Tree | Place | None) -> Place | None:
            return segments.append(client, held) if isinstance(held, dict) else None

        held = {client: stored(client, state) for client, state in self._held.items()}
        before = {client: stored(client, state) for client, state in self._before.items()}
        self._held = {client: place for client, place in held.items() if place is not None}
        self._before = {**before}
        self._segments, self._bytes = segments, 0
        for place in self._held.values():
            self._count(place, 1)

    def _compact(self, segments: Segments) -> None:
        sparse = {
            number
            for number, live in (+self._live).items()
            if number != segments.current and 2 * live < segments.size(number)
        }
        for client, held in list(self._held.items()) if sparse else ():
            if isinstance(held, Place) and held.segment in sparse:
                self._held[client] = new = segments.move(client, held)
                self._count(held, -1)
                self._count(new, 1)


def _size(held: Tree | Place | None) -> int:
    return tree.num_bytes(held) if isinstance(held, dict) else 0


def _same(folder: Path, other: Path) -> bool:
    return folder.is_dir() and other.is_dir() and folder.samefile(other)


def states_of(states: Mapping[int, Tree], clients: Iterable[int]) -> Mapping[int, Tree]:
    """The states of those of the clients that have one, as they are now; stored ones are read when they are used."""
    if isinstance(states, ClientStates):
        return states.part(clients)
    return {client: states[client] for client in clients if client in states}
