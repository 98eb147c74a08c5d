"""Loads a checkpoint and says how long that took: `python -m benchmarks.gpu_ready DIR DEVICE STARTED`."""

import json
import sys
import time
from pathlib import Path


def main() -> None:
    checkpoint, device, started = sys.argv[1:]
    from darkroom.engine.engine import Engine  # noqa: PLC0415  its import is part of what is timed

    imported = time.time()
    Engine.load(Path(checkpoint), device=device)
    if device.startswith("cuda"):
        import torch  # noqa: PLC0415

        torch.cuda.synchronize()
    loaded = time.time()
    print(json.dumps({"start_and_imports_s": imported - float(started), "load_s": loaded - imported}))


if __name__ == "__main__":
    main()
