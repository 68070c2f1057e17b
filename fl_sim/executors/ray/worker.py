"""The code inside one of Ray's workers: it runs the same blocks as any executor, on objects that were sent before."""

import os
import platform
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch

from fl_sim.blocks.learner import Learner
from fl_sim.blocks.plan import BlockPlan
from fl_sim.engines.evaluate import block_sums
from fl_sim.engines.run_block import run_plan
from fl_sim.executors.ray.serialize import Packed, pack, unpack
from fl_sim.registry import search_last

ROWS = "rows"
"""The name under which the indices of samples that are evaluated are sent."""


@dataclass(frozen=True)
class ComputeSettings:
    """The settings of a process that can change bits, and its import path.

    The defaults are those of the current process.
    """

    threads: int
    deterministic: bool = field(default_factory=torch.are_deterministic_algorithms_enabled)
    warn_only: bool = field(default_factory=torch.is_deterministic_algorithms_warn_only_enabled)
    matmul_precision: str = field(default_factory=torch.get_float32_matmul_precision)
    dtype: torch.dtype = field(default_factory=torch.get_default_dtype)
    cudnn: tuple[bool, bool, bool] = field(
        default_factory=lambda: (
            torch.backends.cudnn.deterministic,
            torch.backends.cudnn.benchmark,
            torch.backends.cudnn.allow_tf32,
        )
    )
    mkldnn: bool = field(default_factory=lambda: bool(torch.backends.mkldnn.enabled))
    workspace: str = field(default_factory=lambda: os.environ.get("CUBLAS_WORKSPACE_CONFIG", ""))
    flush_denormal: bool = field(default_factory=lambda: not float(torch.tensor(1e-40) * 1.0))
    paths: tuple[str, ...] = field(default_factory=lambda: tuple(path or os.getcwd() for path in sys.path))

    def apply(self) -> None:
        """Set up the current process with these settings."""
        search_last(*self.paths)
        if self.workspace:
            os.environ["CUBLAS_WORKSPACE_CONFIG"] = self.workspace
        torch.set_num_threads(self.threads)
        before = torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()
        if before != (self.deterministic, self.warn_only):  # any call imports PyTorch's compiler, which takes 2 s
            torch.use_deterministic_algorithms(self.deterministic, warn_only=self.warn_only)
        torch.set_float32_matmul_precision(self.matmul_precision)
        torch.set_default_dtype(self.dtype)
        torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark, torch.backends.cudnn.allow_tf32 = self.cudnn
        torch.backends.mkldnn.enabled = self.mkldnn  # type: ignore[assignment]
        torch.set_flush_denormal(self.flush_denormal)


def versions() -> dict[str, str]:
    """Versions that must be the same in the driver and in all workers."""
    return {"python": ".".join(platform.python_version_tuple()[:2]), "torch": torch.__version__}


class Worker:
    """The class of Ray's actors: one process.

    The objects that it needs are sent before the work that needs them, each under a key.
    """

    def __init__(self) -> None:
        self.objects: dict[str, object] = {}
        self.settings: ComputeSettings | None = None

    def facts(self) -> dict[str, object]:
        """Process id, node, versions, and ``kind``: the kind of device, because bits may differ between kinds."""
        import ray

        context: Any = ray.get_runtime_context()
        address: Any = ray.util.get_node_ip_address
        gpu = torch.cuda.get_device_name(0) if ray.get_gpu_ids() and torch.cuda.is_available() else ""
        return {
            "pid": os.getpid(),
            "node": f"{address()}/{context.get_node_id()[:8]}",
            "kind": gpu or f"{platform.machine()} {torch.backends.cpu.get_cpu_capability()}",
            "versions": versions(),
        }

    def load_learner(self, key: str, settings: ComputeSettings, packed: Packed) -> dict[str, object]:
        """Store a run's learner and return ``facts``.

        All workers of a machine share its samples; on a GPU they are copied there once.
        """
        self.apply(settings)
        self._store(key, lambda: (settings, _on_its_device(unpack(packed, _fetch))))
        return self.facts()

    def load(self, key: str, learner: str, packed: Packed, forget: Sequence[str] = ()) -> None:
        """Drop the objects ``forget``, then store a model or samples on the device of the learner ``learner``."""
        self.forget(forget)
        self._store(key, lambda: unpack(packed, _fetch, self.learner(learner).loss.device.type))

    def run_block(self, learner: str, model: str, packed: Packed, engine: str, chunk: int) -> tuple[Packed, float]:
        """Run a packed BlockPlan; returns (the packed BlockResult without its plan, seconds)."""
        start = time.perf_counter()
        own = self.learner(learner)
        plan: BlockPlan = unpack(packed, device=own.loss.device.type)
        weights, pool = self.get(model)
        try:
            result: Any = run_plan(plan, weights, own, engine, chunk, pool)
        except SystemExit as error:  # sys.exit would end this process
            raise RuntimeError(f"a client called sys.exit({error.code!r})") from error
        result.plan = None
        return pack(result), time.perf_counter() - start

    def evaluate(
        self, learner: str, model: str, data: str, rows: str, starts: Sequence[int]
    ) -> tuple[list[dict[str, float]], float]:
        """(sums over the evaluation blocks that begin at the samples ``starts``, seconds).

        ``data``: the key of the samples, empty for the learner's own; ``rows``: that of the ones that count, or empty.
        """
        start = time.perf_counter()
        own = self.learner(learner)
        weights, _ = self.get(model)
        samples = self.get(data) if data else own.data
        chosen = self.get(rows)[ROWS] if rows else None
        sums = [block_sums(own.loss, weights, samples, first, chosen) for first in starts]
        return sums, time.perf_counter() - start

    def apply(self, settings: ComputeSettings) -> None:
        """Set up this process with a run's settings, where it is not yet."""
        if settings != self.settings:
            settings.apply()
            self.settings = settings

    def forget(self, keys: Sequence[str]) -> None:
        """Drop objects that are no longer needed."""
        for key in keys:
            self.objects.pop(key, None)

    def learner(self, key: str) -> Learner:
        """A run's learner; sets up this process with that run's settings."""
        settings, learner = self.get(key)
        self.apply(settings)
        return learner  # type: ignore[no-any-return]

    def get(self, key: str) -> Any:
        """The object that was sent under ``key``. Raises RuntimeError where it could not be read."""
        value = self.objects[key]
        if isinstance(value, _Unreadable):
            raise RuntimeError(
                "a worker cannot read what the run needs; every node needs the same packages, yours too: "
                f"{value.reason}"
            )
        return value

    def _store(self, key: str, read: Callable[[], object]) -> None:
        try:
            self.objects[key] = read()
        except Exception:
            self.objects[key] = _Unreadable(traceback.format_exc())


@dataclass(frozen=True)
class _Unreadable:
    reason: str


def _fetch(references: list[Any]) -> Any:
    """The arrays behind references: read-only views of the object store's memory."""
    import ray

    return ray.get(references)


def _on_its_device(learner: Learner) -> Learner:
    return replace(learner, data={k: v.to(learner.loss.device) for k, v in learner.data.items()})
