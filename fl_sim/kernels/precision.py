"""How this process computes: threads, deterministic kernels, precision of matrix products. No paper.

Bits follow from the config and the kind of device. On a GPU deterministic algorithms are asked for; PyTorch warns where it
has none.
"""

import os
from typing import Literal

import torch

Precision = Literal["full", "tf32", "bf16"]


def prepare(device: str | torch.device, threads: int, precision: Precision = "full") -> None:
    """Set this process up for blocks on ``device``: once before a run, and in each worker.

    ``full`` keeps products of float32 in float32 (cuDNN would take TF32 by itself); ``tf32`` and ``bf16`` round their factors.
    """
    torch.set_num_threads(threads)
    if torch.device(device).type != "cuda":
        return
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # read when the first product starts
    torch.use_deterministic_algorithms(True, warn_only=True)
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]  # nothing reads memory before it is written
    torch.backends.cudnn.benchmark = False
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = precision == "tf32"
