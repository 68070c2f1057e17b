"""States of clients in segments, as a mapping that reads a state when it is asked for it."""

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from fl_sim.states import segment_files
from fl_sim.states.segment_files import Place, Segments
from fl_sim.tree import Tree


class StoredStates(Mapping[int, Tree]):
    """Client -> its state, as it was when the mapping was made, whatever is stored later.

    To read raises Damaged where a state is not as it was stored. Another process gets a dict of the states.

    Parameters
    ----------
    folder : Path
        The folder of segments.
    places : Mapping[int, Place]
        Where the state of each client is.
    segments : Segments, optional
        Who writes the folder; None: another process, or nobody.
    """

    def __init__(self, folder: Path, places: Mapping[int, Place], segments: Segments | None = None) -> None:
        self.folder, self.places, self.segments = folder, places, segments

    def __getitem__(self, client: int) -> Tree:
        return segment_files.read(self.folder, client, self.places[client])

    def __iter__(self) -> Iterator[int]:
        return iter(self.places)

    def __len__(self) -> int:
        return len(self.places)

    def __contains__(self, client: object) -> bool:
        return client in self.places

    def __reduce__(self) -> tuple[Any, ...]:
        return dict, (list(self.items()),)

    def part(self, clients: Iterable[int]) -> "StoredStates":
        """The states of those of the clients that have one."""
        places = {client: self.places[client] for client in clients if client in self.places}
        return StoredStates(self.folder, places, self.segments)

    def sync(self) -> None:
        """Wait until they are on the disk. Raises OSError."""
        if self.segments is not None:
            self.segments.sync()

    def check(self) -> None:
        """Raise Damaged unless every state is as it was stored."""
        for client, place in sorted(self.places.items(), key=lambda pair: pair[1]):
            segment_files.check(self.folder, client, place)

    # The index of a checkpoint --------------------------------------------------------------------------------------

    @property
    def named(self) -> list[int]:
        """The segments in which they are."""
        return sorted({place.segment for place in self.places.values()})

    def index(self) -> Tensor:
        """(clients, 5): client, segment, offset, length, CRC-32; int64, by client."""
        rows = [(client, *place) for client, place in sorted(self.places.items())]
        return torch.tensor(rows, dtype=torch.int64).reshape(-1, 5)

    @classmethod
    def of_index(cls, folder: Path, index: Tensor) -> "StoredStates":
        """The states that an index names. Raises ValueError where it is none."""
        if index.dtype != torch.int64 or index.ndim != 2 or index.shape[1] != 5 or bool((index[:, 1:] < 0).any()):
            raise ValueError("it has no index of states")
        return cls(folder, {client: Place(*place) for client, *place in index.tolist()})
