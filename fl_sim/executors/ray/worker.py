"""What runs inside one of Ray's workers: the same blocks as anywhere, on things that it was sent before. No paper."""

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
from fl_sim.executors.ray.serialize import Parcel, pack, unpack
from fl_sim.registry import search_last


@dataclass(frozen=True)
class Manner:
    """How a process computes, as far as it touches bits; and where it finds what is imported."""

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

    def adopt(self) -> None:
        """Compute like this from now on."""
        search_last(*self.paths)
        if self.workspace:
            os.environ["CUBLAS_WORKSPACE_CONFIG"] = self.workspace
        torch.set_num_threads(self.threads)
        torch.use_deterministic_algorithms(self.deterministic, warn_only=self.warn_only)
        torch.set_float32_matmul_precision(self.matmul_precision)
        torch.set_default_dtype(self.dtype)
        torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark, torch.backends.cudnn.allow_tf32 = self.cudnn
        torch.backends.mkldnn.enabled = self.mkldnn  # type: ignore[assignment]
        torch.set_flush_denormal(self.flush_denormal)


def versions() -> dict[str, str]:
    """Of what must be the same everywhere."""
    return {"python": ".".join(platform.python_version_tuple()[:2]), "torch": torch.__version__}


class Worker:
    """One process; an actor's class. Things that it needs come before the work that needs them, each under a key."""

    def __init__(self) -> None:
        self.things: dict[str, Any] = {}
        self.manner: Manner | None = None

    def facts(self) -> dict[str, Any]:
        """Who this is. ``kind`` is the kind of device: bits may differ between kinds."""
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

    def learn(self, key: str, manner: Manner, parcel: Parcel) -> dict[str, Any]:
        """Keep a run's learner, whose samples all workers of a machine share; on a GPU, copy them there once. Returns ``facts``."""
        self.adopt(manner)
        self._keep(key, lambda: (manner, _at_home(unpack(parcel, _fetch))))
        return self.facts()

    def load(self, key: str, learner: str, parcel: Parcel, forget: Sequence[str] = ()) -> None:
        """Keep a model, or samples, on a learner's device."""
        self.forget(forget)
        self._keep(key, lambda: unpack(parcel, _fetch, self.learner(learner).loss.device.type))

    def block(self, learner: str, model: str, parcel: Parcel, engine: str, chunk: int) -> tuple[Parcel, float]:
        """(the BlockResult without its plan, seconds)."""
        start = time.perf_counter()
        own = self.learner(learner)
        plan: BlockPlan = unpack(parcel, device=own.loss.device.type)
        weights, pool = self.thing(model)
        try:
            result: Any = run_plan(plan, weights, own, engine, chunk, pool)
        except SystemExit as error:  # would end this process
            raise RuntimeError(f"a client called sys.exit({error.code!r})") from error
        result.plan = None
        return pack(result), time.perf_counter() - start

    def evaluate(
        self, learner: str, model: str, data: str, starts: Sequence[int]
    ) -> tuple[list[dict[str, float]], float]:
        """(sums of the evaluation blocks that begin at ``starts``, seconds)."""
        start = time.perf_counter()
        loss = self.learner(learner).loss
        weights, _ = self.thing(model)
        return [block_sums(loss, weights, self.thing(data), first) for first in starts], time.perf_counter() - start

    def adopt(self, manner: Manner) -> None:
        """Compute in a run's manner."""
        if manner != self.manner:
            manner.adopt()
            self.manner = manner

    def forget(self, keys: Sequence[str]) -> None:
        """Let things go."""
        for key in keys:
            self.things.pop(key, None)

    def learner(self, key: str) -> Learner:
        """A run's learner; this process computes in that run's manner from here on."""
        manner, learner = self.thing(key)
        self.adopt(manner)
        return learner  # type: ignore[no-any-return]

    def thing(self, key: str) -> Any:
        """What was sent under ``key``. Raises RuntimeError where it could not be read."""
        thing = self.things[key]
        if isinstance(thing, _Unreadable):
            raise RuntimeError(
                f"a worker cannot read what the run needs; every node needs the same packages, yours too: {thing.why}"
            )
        return thing

    def _keep(self, key: str, read: Callable[[], Any]) -> None:
        try:
            self.things[key] = read()
        except Exception:
            self.things[key] = _Unreadable(traceback.format_exc())


@dataclass(frozen=True)
class _Unreadable:
    why: str


def _fetch(references: list[Any]) -> Any:
    """Arrays for references to them: read-only views of the object store's memory."""
    import ray

    return ray.get(references)


def _at_home(learner: Learner) -> Learner:
    return replace(learner, data={k: v.to(learner.loss.device) for k, v in learner.data.items()})
