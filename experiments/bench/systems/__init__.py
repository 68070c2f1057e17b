"""The compared systems, one file each; a child process runs one as ``python -m experiments.bench.systems.MODULE``."""

from experiments.bench.children.system import System

HEAP = {"MALLOC_MMAP_THRESHOLD_": str(1 << 25), "MALLOC_TRIM_THRESHOLD_": str(1 << 32)}
"""Makes glibc keep freed buffers of up to 32 MiB (its largest threshold) instead of returning them to the system.

New pages from the system would have to be cleared at each allocation.
"""

SYSTEMS = {
    "ours-loop": System("ours", "this simulator, engine loop, one process", {"engine": "loop"}),
    "ours-vmap": System("ours", "this simulator, engine vmap, one process", {"engine": "vmap"}),
    "ours-ray": System("ours", "this simulator, Ray workers, one a core", {"engine": "ray"}),
    "stateless": System("ours", "this simulator, engine vmap; clients keep nothing", {"engine": "vmap", "keep": False}),
    "stateful": System(
        "ours", "the same, but each client keeps the model that it sent last", {"engine": "vmap", "keep": True}
    ),
    "bare": System("bare", "a PyTorch loop as one writes it by hand, one process, PyTorch's own threads"),
    "bare-careful": System(
        "careful", "the same loop, optimised: one process a core, one thread each, nothing copied twice", env=HEAP
    ),
    "flower": System(
        "flower", "Flower's simulation, ClientApp as in its PyTorch quickstart, one actor a core", {"careful": False}
    ),
    "flower-careful": System(
        "flower", "Flower's simulation, data and model kept in the actor, no DataLoader, one thread", {"careful": True}
    ),
    "pfl": System("pfl", "pfl-research's FederatedAveraging, one process a core"),
    "blazefl": System("blazefl", "BlazeFL's FedAvg, process pool, one process a core"),
}
YARDSTICK = System("yardstick", "a plain matrix product on all cores")
