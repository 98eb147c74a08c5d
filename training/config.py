"""Sizes and recipe. One config and one seed fix the checkpoint."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType


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

    steps: int = 2400
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
    adapter_ranks: Mapping[str, int] = field(default_factory=lambda: MappingProxyType({"multiple_angle": 64}))
    """Of the adapters that have another than `adapter_rank`."""

    @property
    def width(self) -> int:
        return self.heads * self.head_dim

    def rank(self, adapter: str) -> int:
        return self.adapter_ranks.get(adapter, self.adapter_rank)


_SHARES = MappingProxyType(
    {
        "plus.recolour": 5.0,
        "plus.erase": 4.0,
        "plus.add": 5.5,
        "plus.floor": 3.5,
        "plus.light": 2.0,
        "plus.seat": 4.0,
        "multiple_angle": 40.0,
        "product_photography": 5.0,
        "texture_apply": 28.0,
        "texture_extract": 5.0,
        "eigen_banana": 2.0,
        "blend_it": 3.0,
        "relight": 3.0,
        "remove_lighting": 2.0,
        "next_scene": 4.5,
        "group_photo": 3.0,
        "add_people": 4.0,
        "face_to_portrait": 3.0,
        "eraser": 3.5,
        "pair": 2.0,
        "unadapted": 3.0,
    }
)


@dataclass(frozen=True, kw_only=True, slots=True)
class JointRecipe:
    """A step takes `parts` batches of `batch` samples, each of one job with its adapters.

    The pool begins with `first_shards` and grows evenly to `shards`. Up to `flow_from` of the steps only t = 1 is
    trained (noise in, picture out); then half of the samples are at other times, and a tenth are without prompt.
    changed_weight: of tokens that the edit changes, against 1.
    """

    steps: int = 16_000
    batch: int = 16
    parts: int = 3
    first_shards: int = 8
    shards: int = 100
    flow_from: float = 0.85
    decay_from: float = 0.3
    matrix_rate: float = 0.02
    other_rate: float = 1.5e-3
    average: float = 0.998
    changed_weight: float = 3.0
    unprompted: float = 0.1
    shares: Mapping[str, float] = field(default_factory=lambda: _SHARES)
    """How often a batch is of each job. unadapted: a preset's samples without its adapter: the picture stays."""


@dataclass(frozen=True, kw_only=True, slots=True)
class FastRecipe:
    """Of the 8-step LoRA; its batches are as the joint recipe has them."""

    steps: int = 800
    rate: float = 1e-3


@dataclass(frozen=True, kw_only=True, slots=True)
class RefineRecipe:
    """Of one preset's adapter, which goes on alone. Batches, times and the average are as the joint recipe has them.

    scenes: of each job in a shard. shares: of batches; jobs that take the adapter.
    """

    preset: str = "multiple_angle"
    steps: int = 3_600
    first_shards: int = 8
    shards: int = 40
    flow_from: float = 0.85
    decay_from: float = 0.3
    rate: float = 0.02
    scenes: Mapping[str, int] = field(default_factory=lambda: MappingProxyType({"multiple_angle": 72, "pair": 16}))
    shares: Mapping[str, float] = field(default_factory=lambda: MappingProxyType({"multiple_angle": 9.0, "pair": 1.0}))


@dataclass(frozen=True, kw_only=True, slots=True)
class Config:
    seed: int = 1
    vae: VaeSizes = field(default_factory=VaeSizes)
    vae_recipe: VaeRecipe = field(default_factory=VaeRecipe)
    text: TextSizes = field(default_factory=TextSizes)
    transformer: TransformerSizes = field(default_factory=TransformerSizes)
    joint_recipe: JointRecipe = field(default_factory=JointRecipe)
    fast_recipe: FastRecipe = field(default_factory=FastRecipe)
    refine_recipe: RefineRecipe = field(default_factory=RefineRecipe)


def on_gpu(config: Config, times: int = 8) -> Config:
    """The same with larger batches, since a GPU would idle at so few samples."""
    vae, joint = config.vae_recipe, config.joint_recipe
    return replace(
        config,
        vae_recipe=replace(vae, crops=times * vae.crops, wholes=times * vae.wholes),
        joint_recipe=replace(joint, batch=times * joint.batch),
    )
