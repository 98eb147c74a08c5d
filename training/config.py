"""Sizes and recipe. One config and one seed fix the checkpoint."""

from dataclasses import dataclass, field


@dataclass(frozen=True, kw_only=True, slots=True)
class VaeSizes:
    base_dim: int = 16
    dim_mult: tuple[int, ...] = (1, 2, 4, 4)
    num_res_blocks: int = 1
    z_dim: int = 16


@dataclass(frozen=True, kw_only=True, slots=True)
class VaeRecipe:
    """shards: of pictures trained on. First on crops, whose batches differ more at the same cost; whole pictures from
    `whole_from` of the steps on. Rates stay until `decay_from` of the steps, then fall linearly to nothing."""

    steps: int = 5000
    shards: int = 8
    crop_px: int = 64
    crops: int = 32
    wholes: int = 8
    whole_from: float = 0.75
    decay_from: float = 0.5
    matrix_rate: float = 0.02
    other_rate: float = 2e-3
    average: float = 0.998
    latent_noise: float = 0.07
    latent_penalty: float = 5e-4


@dataclass(frozen=True, kw_only=True, slots=True)
class TextSizes:
    layers: int = 3
    hidden: int = 160
    heads: int = 5
    kv_heads: int = 1
    intermediate: int = 448
    mrope_section: tuple[int, int, int] = (4, 6, 6)


@dataclass(frozen=True, kw_only=True, slots=True)
class TransformerSizes:
    layers: int = 5
    heads: int = 4
    head_dim: int = 60
    axes: tuple[int, int, int] = (12, 24, 24)
    adapter_rank: int = 7

    @property
    def width(self) -> int:
        return self.heads * self.head_dim


@dataclass(frozen=True, kw_only=True, slots=True)
class Config:
    seed: int = 1
    vae: VaeSizes = field(default_factory=VaeSizes)
    vae_recipe: VaeRecipe = field(default_factory=VaeRecipe)
    text: TextSizes = field(default_factory=TextSizes)
    transformer: TransformerSizes = field(default_factory=TransformerSizes)
