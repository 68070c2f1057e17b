"""Sets up how this process computes: threads, deterministic kernels, precision of matrix products.

The bits of results then depend on the config and the kind of device only. On a GPU deterministic algorithms are
requested; PyTorch warns where it has none.
"""

import os
from typing import Literal

import torch

Precision = Literal["full", "tf32", "bf16"]


def prepare(device: str | torch.device, threads: int, precision: Precision = "full") -> None:
    """Set up this process for training on a device; called once before a run.

    Parameters
    ----------
    device : str | torch.device
        Where clients train.
    threads : int
        PyTorch's threads on the CPU.
    precision : Precision (default: "full")
        ``full`` computes products of float32 in float32 (the default of cuDNN is TF32); ``tf32`` rounds their
        factors; ``bf16`` is left to ``fl_sim.learning.loss.Loss``, which runs the network under autocast.
    """
    torch.set_num_threads(threads)
    if torch.device(device).type != "cuda":
        return
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # cuBLAS reads it at the first matrix product
    torch.use_deterministic_algorithms(True, warn_only=True)
    # no kernel here reads memory before it is written, so filling it would only take time
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    torch.backends.cudnn.benchmark = False
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = precision == "tf32"
