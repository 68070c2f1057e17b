"""``python -m experiments.bench.gpu.training_step DEVICE CLIENTS full|tf32 [cnn|lenet]``: times a training step.

It is the step of C clients, each with weights of its own, in several forms: *grouped*, plain ``vmap``, where the
convolutions of all clients become one grouped convolution; *patches*, batched matrix products over image patches
(``fl_sim.kernels.patches``); *channels-last*, plain ``vmap`` in that memory format. Each is also timed as a CUDA graph.
The CNN is also compiled by ``torch.compile``; the seconds of the compilation are reported.

Legend: C clients, B batch.
"""

import json
import statistics
import sys
import time
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from clients.models.cnn import cnn
from clients.models.lenet import lenet
from fl_sim import rng
from fl_sim.kernels import layers
from fl_sim.kernels.precision import prepare

Step = Callable[[dict[str, Tensor], Tensor, Tensor], object]
"""(weights (C, ...), x (C, B, ...), y (C, B)) -> new weights."""


def step_of(module: nn.Module, lr: float = 0.1) -> Step:
    """A function that does one SGD step of every client."""

    def loss(params: dict[str, Tensor], x: Tensor, y: Tensor) -> Tensor:
        return F.cross_entropy(torch.func.functional_call(module, params, (x,)), y)

    def one(params: dict[str, Tensor], x: Tensor, y: Tensor) -> dict[str, Tensor]:
        grads = torch.func.grad(loss)(params, x, y)
        return {k: p - lr * grads[k] for k, p in params.items()}

    return torch.func.vmap(one)


def graphed(step: Step, params: dict[str, Tensor], x: Tensor, y: Tensor) -> Step:
    """The step recorded as a CUDA graph, which reads and writes the same tensors at each call."""
    stream: Any = torch.cuda.Stream()  # type: ignore[no-untyped-call]
    with torch.cuda.stream(stream):
        for _ in range(3):
            step(params, x, y)
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        step(params, x, y)

    def replay(params: dict[str, Tensor], x: Tensor, y: Tensor) -> None:
        graph.replay()

    return replay


def milliseconds(step: Step, *arguments: Any, device: torch.device, repeats: int = 20) -> float:
    """Median milliseconds of a step, after three steps to warm up."""
    times = []
    for _ in range(repeats + 3):
        start = time.perf_counter()
        step(*arguments)
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        times.append(time.perf_counter() - start)
    return 1000 * statistics.median(times[3:])


def main() -> int:
    """Run the command; prints one line of JSON."""
    device, clients, batch = torch.device(sys.argv[1]), int(sys.argv[2]), 10
    prepare(device, torch.get_num_threads(), "tf32" if sys.argv[3] == "tf32" else "full")
    model = sys.argv[4] if sys.argv[4:] else "cnn"
    with rng.keyed_globals(0):
        module = {"cnn": cnn, "lenet": lenet}[model]((3, 32, 32), 10).eval()
    net = nn.Sequential(*module.children()).to(device)
    params = {k: v.detach().expand(clients, *v.shape).contiguous().to(device) for k, v in net.named_parameters()}
    pixels = rng.uniform(rng.words(rng.key(0, "steps")), (clients, batch, 3, 32, 32)).to(device)
    labels = (torch.arange(clients * batch, device=device) % 10).reshape(clients, batch)
    last = pixels.flatten(0, 1).to(memory_format=torch.channels_last).reshape(clients, batch, 3, 32, 32)
    forms = {
        "grouped": (step_of(net), pixels),
        "patches": (step_of(layers.many_clients_form(net, "cuda")), pixels),
        "channels-last": (step_of(net), last),
    }
    if device.type == "cuda":
        forms |= {f"{name} + graph": (graphed(step, params, x, labels), x) for name, (step, x) in forms.items()}
    start = time.perf_counter()
    if model == "cnn":
        compiled: Step = torch.compile(step_of(net))
        compiled(params, pixels, labels)
        forms["grouped + torch.compile"] = compiled, pixels
    seconds = time.perf_counter() - start
    figures = {name: milliseconds(step, params, x, labels, device=device) for name, (step, x) in forms.items()}
    print(json.dumps({"clients": clients, "batch": batch, "milliseconds": figures, "compile_seconds": seconds}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
