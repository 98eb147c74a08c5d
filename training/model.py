"""Text encoder, transformer and adapters, as they are trained together."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F  # noqa: N812 — its name everywhere
from torch import Tensor, nn

from training.config import Config
from training.latents import Batch
from training.text_twin import TextTwin
from training.transformer_twin import Adapter, TransformerTwin
from training.world.jobs import PRESETS

CHANNELS = 64
GRID = (8, 8)
"""Rows and columns of a picture's tokens."""


class Editor(nn.Module):
    """dtype: of matrix products."""

    def __init__(self, config: Config, *, tokens: int, image_token: int, dtype: torch.dtype) -> None:
        super().__init__()
        self.dtype = dtype
        self.text = TextTwin(config.text, tokens=tokens, image_token=image_token)
        self.transformer = TransformerTwin(config.transformer, joint=config.text.hidden, channels=CHANNELS, dtype=dtype)
        sizes = config.transformer
        self.adapters = nn.ModuleDict({preset: Adapter(sizes, sizes.rank(preset)) for preset in PRESETS})

    def forward(self, batch: Batch, noisy: Tensor, moments: Tensor, adapters: Sequence[str]) -> Tensor:
        """The velocity at `moments`, [B, tokens, channels]; the tensors on this model's device."""
        with torch.autocast(noisy.device.type, self.dtype, enabled=self.dtype is not torch.float32):
            hidden = self.text(batch.opening, batch.rest)
            padded = F.pad(batch.padded, (hidden.shape[1] - batch.padded.shape[1], 0))
            velocity: Tensor = self.transformer(
                noisy,
                batch.pictures,
                hidden,
                moments,
                padded=padded,
                grids=[GRID] * (1 + batch.count),
                adapters=[self.adapters[name] for name in adapters],
            )
        return velocity.float()


def compile_blocks(editor: Editor) -> None:
    """Fuses the small operations of the transformer's blocks. With and without adapters, gradients and text, a block is
    compiled anew, more often than torch would have it."""
    torch._dynamo.config.recompile_limit = 64  # noqa: SLF001 — its documented place
    for block in editor.transformer.transformer_blocks:
        block.compile(dynamic=True)


def by_optimiser(editor: Editor) -> tuple[list[nn.Parameter], list[nn.Parameter]]:
    """Parameters for Muon (attention and MLP matrices of both networks), and for Adam."""
    matrices: list[nn.Parameter] = []
    others: list[nn.Parameter] = []
    for name, parameter in editor.named_parameters():
        inner = any(part in name for part in (".attn.to", ".attn.add", "_mlp.", "self_attn.", ".mlp."))
        is_matrix = inner and parameter.dim() == 2 and not name.startswith("adapters.")
        (matrices if is_matrix else others).append(parameter)
    return matrices, others
