"""SCAFFOLD on a LeNet with mini-batches, against a loop in plain torch that shares no code with it."""

from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from clients.models.lenet import lenet
from experiments.run import Outcome, run
from fl_sim import Batch, Callback, Run, from_arrays
from strategies.scaffold import Scaffold

CLIENTS, COHORT, LR = 6, 4, 0.1
SEEN: dict[int, list[list[Batch]]] = defaultdict(list)
"""The batches of each visit of a client, by the client: of a run on the loop, in this process."""


class Seen(Scaffold):
    """SCAFFOLD that keeps its batches; a client is known by its first label."""

    def payload_update(
        self, model: Any, payload: Mapping[str, Any], state: Any, batches: Any, loss: Any, local: Any
    ) -> Any:
        steps = list(batches["train"])
        SEEN[int(steps[0].data["y"][0])].append(steps)
        return super().payload_update(model, payload, state, {"train": steps}, loss, local)


class Models(Callback):
    """The global model after each round."""

    def __init__(self) -> None:
        self.models: list[dict[str, Tensor]] = []

    def on_round_end(self, run: Run, row: dict[str, Any]) -> None:
        self.models.append(dict(run.model))


def plain(start: Mapping[str, Tensor], chosen: list[list[int]]) -> list[dict[str, Tensor]]:
    """Algorithm 1, option II, of Karimireddy et al. 2020: the model after each round, with the clients of each."""
    module = lenet((3, 16, 16), CLIENTS).double()
    names = [name for name, _ in module.named_parameters()]
    x = {k: v.clone() for k, v in start.items()}
    c = {k: torch.zeros_like(x[k]) for k in names}
    own = {client: {k: torch.zeros_like(x[k]) for k in names} for client in range(CLIENTS)}
    visits, found = dict.fromkeys(range(CLIENTS), 0), []
    for clients in chosen:
        moved = {k: torch.zeros_like(x[k]) for k in names}
        changed = {k: torch.zeros_like(x[k]) for k in names}
        for client in clients:
            module.load_state_dict(x)
            steps = SEEN[client][visits[client]]
            visits[client] += 1
            for batch in steps:
                module.zero_grad()
                F.cross_entropy(module(batch.data["x"]), batch.data["y"]).backward()
                with torch.no_grad():
                    for name, parameter in module.named_parameters():
                        assert parameter.grad is not None
                        parameter -= LR * (parameter.grad - own[client][name] + c[name])
            for name, y in module.named_parameters():
                new = own[client][name] - c[name] + (x[name] - y.detach()) / (len(steps) * LR)
                moved[name] += (y.detach() - x[name]) / len(clients)
                changed[name] += (new - own[client][name]) / len(clients)
                own[client][name] = new
        x = {k: x[k] + moved[k] for k in names}
        c = {k: c[k] + len(clients) / CLIENTS * changed[k] for k in names}
        found.append(x)
    return found


def test_every_round_agrees_with_plain_torch(tmp_path: Path) -> None:
    """Clients with one label each, batches of 8, of unequal number, the last ones smaller; clients come and go."""
    SEEN.clear()
    draw = torch.Generator().manual_seed(3)
    owner = torch.arange(CLIENTS).repeat_interleave(torch.tensor([5, 8, 9, 12, 16, 20]))
    pictures = torch.randn(len(owner), 3, 16, 16, generator=draw, dtype=torch.float64) + owner[:, None, None, None] / 3
    seen = Models()
    outcome = run(
        task=from_arrays(pictures, owner, clients=owner),
        model="lenet",
        strategy=Seen(),
        **{"rounds": 12, "cohort": COHORT, "dtype": "float64", "engine": "loop", "evaluate_every": 12},
        **{"local": {"lr": LR, "batch_size": 8}, "out": str(tmp_path), "callbacks": [seen]},
    )
    assert isinstance(outcome, Outcome)
    trained = outcome.log.clients.query("phase == 'train'")
    chosen = [trained.loc[trained["round"] == number, "client"].tolist() for number in range(1, 13)]
    assert len({tuple(sorted(clients)) for clients in chosen}) > 5
    expected = plain(seen.models[0], chosen)
    for number, model in enumerate(expected, 1):
        for name, value in model.items():
            difference = float((seen.models[number][name] - value).abs().max())
            assert difference < 1e-12, f"{name} in round {number}"
