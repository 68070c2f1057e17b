"""The states of a grid's clients, and what they were when the last round ended."""

from fl_sim.tree import Tree


class ClientStates(dict[int, Tree]):
    """Client id -> its state. Keeps what it held when ``mark`` was called last, at the cost of the changes since."""

    def __init__(self) -> None:
        super().__init__()
        self._before: dict[int, Tree | None] = {}

    def __setitem__(self, client: int, state: Tree) -> None:
        self._before.setdefault(client, self.get(client))
        super().__setitem__(client, state)

    def mark(self) -> None:
        """Keep what is held now."""
        self._before.clear()

    @property
    def marked(self) -> dict[int, Tree]:
        """What was held when ``mark`` was called last."""
        return {client: state for client, state in {**self, **self._before}.items() if state is not None}
