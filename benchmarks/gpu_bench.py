"""What the sections of `benchmarks.gpu` share: the device, the sizes, the engines, and a clock."""

import gc
import json
import statistics
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks.gpu_checkpoint import random_weights
from darkroom.engine.engine import Engine
from darkroom.engine.kernels import Kernels
from darkroom.engine.models import CompileMode
from darkroom.engine.transformer import Transformer, TransformerConfig

Found = Iterator[tuple[str, Any]]
"""What a section finds, by name, as soon as it knows."""


@dataclass(kw_only=True)
class Bench:
    """checkpoint: a folder of files without values. diffusers: a wheel or folder to import it from. compile: as the
    setting has it; off is torch as it is. deadline: of everything, on the monotonic clock. engines: by tier, with what
    their weights take in weights_bytes.
    """

    device: torch.device
    toy: bool
    checkpoint: Path
    diffusers: Path | None
    compile: CompileMode
    deadline: float
    engines: dict[str, Engine] = field(default_factory=dict)
    weights_bytes: dict[str, int] = field(default_factory=dict)

    @property
    def cuda(self) -> bool:
        return self.device.type == "cuda"

    @property
    def dtype(self) -> torch.dtype:
        return torch.bfloat16 if self.cuda else torch.float32

    @property
    def side(self) -> int:
        """Tokens of a side of the largest square result."""
        return 8 if self.toy else 64

    @property
    def left_s(self) -> float:
        return self.deadline - time.monotonic()

    @property
    def config(self) -> TransformerConfig:
        return TransformerConfig.read(json.loads((self.checkpoint / "transformer" / "config.json").read_text()))

    @property
    def kernels(self) -> Kernels:
        """Those the engine chose."""
        return self.transformer("exact").kernels

    def engine(self, tier: str) -> Engine:
        """Loaded at the first call, with random weights made on the device."""
        if tier not in self.engines:
            before = self.allocated_bytes()
            with random_weights():
                self.engines[tier] = Engine.load(
                    self.checkpoint,
                    device=str(self.device),
                    dtype="bfloat16" if self.cuda else "float32",
                    tier="fast" if tier == "fast" else "exact",
                    compile=self.compile,
                )
            self.weights_bytes[tier] = self.allocated_bytes() - before
        return self.engines[tier]

    def transformer(self, tier: str) -> Transformer:
        return self.engine(tier)._models.transformer

    def allocated_bytes(self) -> int:
        return torch.cuda.memory_allocated(self.device) if self.cuda else 0

    def release(self) -> None:
        """Gives back the memory of what is no longer used, modules that refer to themselves among it."""
        gc.collect()
        if self.cuda:
            torch.cuda.empty_cache()

    def synchronize(self) -> None:
        if self.cuda:
            torch.cuda.synchronize(self.device)

    def seconds(self, call: Callable[[], object], *, rounds: int = 3, warm_up: int = 1) -> float:
        """The median, of calls that take milliseconds or more."""
        taken = []
        for number in range(warm_up + rounds):
            self.synchronize()
            started = time.perf_counter()
            call()
            self.synchronize()
            if number >= warm_up:
                taken.append(time.perf_counter() - started)
        return statistics.median(taken)

    def short_ms(self, call: Callable[[], object]) -> float:
        """The median, of calls that may take microseconds; on a GPU nothing they read is in its cache."""
        if not self.cuda:
            return 1000 * self.seconds(call)
        from triton.testing import do_bench  # noqa: PLC0415  only a GPU's machine has it for sure

        taken: float = do_bench(call, warmup=10, rep=50, return_mode="median")
        return taken


def tried(measure: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
    """What it gives; or its error, so that the rows after this one are measured all the same."""
    try:
        return measure(*arguments, **options)
    except Exception as error:  # noqa: BLE001  it is part of the report
        traceback.print_exc()
        return {"error": f"{type(error).__name__}: {str(error)[:300]}"}


def off_by(made: Tensor, expected: Tensor) -> float:
    """The error's length to that of what is expected."""
    wide = expected.double()
    return float((made.double() - wide).norm() / wide.norm().clamp(min=1e-30))
