"""A run that begins with what an earlier one has learnt, from the checkpoint that was exported:
`python -m training.run --out DIR --start CHECKPOINT`.

The inverse of `export`, to its rounding; an adapter whose rank the config has raised does what it did. The 8-step LoRA
is not taken along: it is trained anew for the weights that come out.
"""

import json
import math
import shutil
from pathlib import Path

import torch
import torch.nn.functional as F  # noqa: N812 — its name everywhere
from safetensors.torch import load_file
from torch import Tensor

from darkroom.checkpoint.declaration import read_declaration
from training.config import Config
from training.export import LORA_NAMES
from training.pool import save
from training.transformer_twin import adapted
from training.vae_twin import VaeTwin, fold
from training.world.jobs import PRESETS

_PICTURE = "visual.merger.mlp.2.bias"


def begin(config: Config, checkpoint: Path, out: Path) -> None:
    """Puts it where a run's stages look first, unless the run has gone further already. Raises `BadCheckpoint`, and
    KeyError for a checkpoint of other sizes than the config's."""
    vae, joint = out / "vae" / "finished.pt", out / "joint" / "start.pt"
    if not (out / "tokenizer").exists():
        shutil.copytree(checkpoint / "tokenizer", out / "tokenizer")
    if not vae.exists():
        twin = VaeTwin(config.vae)
        twin.load_state_dict(fold(_part(checkpoint / "vae"), twin))
        made = json.loads((checkpoint / "vae" / "config.json").read_text(encoding="utf-8"))
        save({"weights": twin.state_dict(), "mean": made["latents_mean"], "std": made["latents_std"]}, vae)
    if not joint.exists():
        save({name: value.float() for name, value in _editor(config, checkpoint).items()}, joint)


def _editor(config: Config, checkpoint: Path) -> dict[str, Tensor]:
    transformer, text = _part(checkpoint / "transformer"), _part(checkpoint / "text_encoder")
    weights = {f"transformer.{name}": value for name, value in transformer.items()}
    weights |= {f"text.{name}": value for name, value in text.items() if not name.startswith("visual.")}
    weights["text.picture"] = text[_PICTURE]
    files, draw = read_declaration(checkpoint).loras, torch.Generator().manual_seed(config.seed)
    for preset in PRESETS:
        lora = load_file(files[LORA_NAMES[preset]])
        for key, published in adapted(config.transformer.layers):
            down, up = (lora[f"transformer.{published}.lora_{side}.weight"].float() for side in "AB")
            missing = config.transformer.rank(preset) - len(down)
            more = torch.randn(missing, down.shape[1], generator=draw) / math.sqrt(down.shape[1])
            weights[f"adapters.{preset}.down.{key}"] = torch.cat([down, more])
            weights[f"adapters.{preset}.up.{key}"] = F.pad(up, (0, missing))
    return weights


def _part(folder: Path) -> dict[str, Tensor]:
    weights: dict[str, Tensor] = {}
    for path in sorted(folder.glob("*.safetensors")):
        weights |= load_file(path)
    return weights
