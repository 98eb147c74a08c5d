"""What an earlier run has learnt, for another to begin with: a VAE in the published layout, and the editor's weights.

`python -m training.start keep OUT FOLDER` keeps a run's; `python -m training.run --out OUT --start FOLDER` begins with
one.
"""

import json
import sys
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from training.config import Config
from training.pool import save
from training.vae_twin import VaeTwin, fold

SHARDS = 2
VAE = "vae"


def keep(out: Path, folder: Path) -> None:
    """The editor's averaged weights, in bfloat16, of a run finished or under way."""
    finished = out / "joint" / "finished.pt"
    if finished.exists():
        weights: dict[str, Tensor] = torch.load(finished, weights_only=True, map_location="cpu")
    else:
        weights = torch.load(out / "joint" / "state.pt", weights_only=True, map_location="cpu")["averaged"]
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(SHARDS):
        names = sorted(weights, key=lambda name: (weights[name].numel(), name))[number::SHARDS]
        path = folder / f"editor-{number + 1}-of-{SHARDS}.safetensors"
        save_file({name: weights[name].bfloat16().contiguous() for name in names}, path)
        # The writer makes files for their owner alone.
        path.chmod(0o644)


def begin(config: Config, folder: Path, out: Path) -> None:
    """Puts them where a run's stages look first, unless it has gone further already."""
    vae, joint = out / "vae" / "finished.pt", out / "joint" / "start.pt"
    if not vae.exists():
        twin = VaeTwin(config.vae)
        twin.load_state_dict(fold(load_file(folder / VAE / "diffusion_pytorch_model.safetensors"), twin))
        made = json.loads((folder / VAE / "config.json").read_text())
        save({"weights": twin.state_dict(), "mean": made["latents_mean"], "std": made["latents_std"]}, vae)
    if not joint.exists():
        weights: dict[str, Tensor] = {}
        for path in sorted(folder.glob("editor-*.safetensors")):
            weights |= load_file(path)
        save({name: value.float() for name, value in weights.items()}, joint)


if __name__ == "__main__":
    _, asked, out, folder = sys.argv
    if asked != "keep":
        sys.exit("usage: python -m training.start keep OUT FOLDER")
    keep(Path(out), Path(folder))
