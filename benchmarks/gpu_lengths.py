"""What attention takes at a length that it has not met before.

For what torch reads from the environment but once: `python -m benchmarks.gpu_lengths DEVICE IMAGE_TOKENS BACKEND`.
"""

import json
import statistics
import sys
import time
from contextlib import nullcontext

import torch
import torch.nn.functional as F  # noqa: N812  its customary name
from torch.nn.attention import SDPBackend, sdpa_kernel

HEADS, HEAD_DIM = 24, 128
TEXT_TOKENS = (388, 389, 433, 461)
"""No other section has prompts of so many. The first of them sets up what there is to set up but once."""


@torch.inference_mode()
def first_calls(device: torch.device, image_tokens: int, backend: str) -> dict[str, float]:
    """Milliseconds of the first call at each length and of the next, medians. backend: empty is torch's choice."""
    dtype = torch.bfloat16 if device.type == "cuda" else torch.float32

    def attend_ms(parts: list[torch.Tensor]) -> float:
        _wait(device)
        started = time.perf_counter()
        F.scaled_dot_product_attention(*parts)
        _wait(device)
        return 1000 * (time.perf_counter() - started)

    first, again = [], []
    with sdpa_kernel(getattr(SDPBackend, backend)) if backend else nullcontext():
        for text_tokens in TEXT_TOKENS:
            shape = image_tokens + text_tokens, HEADS, HEAD_DIM
            parts = [torch.randn(shape, device=device, dtype=dtype)[None].transpose(1, 2) for _ in range(3)]
            first.append(attend_ms(parts))
            again.append(attend_ms(parts))
    return {"first_ms": statistics.median(first[1:]), "again_ms": statistics.median(again[1:])}


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


if __name__ == "__main__":
    place, tokens, how = sys.argv[1:]
    print(json.dumps(first_calls(torch.device(place), int(tokens), how)))
