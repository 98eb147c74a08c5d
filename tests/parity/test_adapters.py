"""Adapters against the tools that make them: each file's merged weights, and a picture under three at once."""

import shutil
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import QwenImageEditPlusPipeline, QwenImageTransformer2DModel
from diffusers.training_utils import _collate_lora_metadata
from lycoris import LycorisNetwork, create_lycoris
from peft import LoHaConfig, LoKrConfig, LoraConfig, PeftConfig, get_peft_model, get_peft_model_state_dict
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from darkroom.engine.adapter import Adapter, load_adapter, merged_weights
from darkroom.engine.engine import Engine
from darkroom.lora.convert import AdapterFile, convert
from edits import an_edit, some_pictures
from loras import LAYOUTS, MODULES, TARGETS, Layout, make_pairs, save
from parity.compare import assert_alike, levels_between
from parity.oracle import Reference
from parity.ours import run_stages

STRENGTHS = {"diffusers": 1.0, "lightx2v": -0.6, "kohya": 2.5}
"""Of three adapters at once, each in a layout of its own."""


@pytest.fixture(scope="module")
def base(tiny_checkpoint: Path) -> dict[str, Tensor]:
    """The transformer's weights, in float32."""
    return read_transformer(tiny_checkpoint)


def read_transformer(folder: Path) -> dict[str, Tensor]:
    return {
        name: value.float()
        for path in sorted((folder / "transformer").glob("*.safetensors"))
        for name, value in load_file(path).items()
    }


def load(path: Path) -> Adapter:
    canonical = path.with_name(f"{path.name} canonical")
    convert(path, canonical, MODULES)
    return load_adapter(canonical)


def assert_merged(base: Mapping[str, Tensor], adapter: Adapter, expected: Mapping[str, Tensor]) -> None:
    """Every parameter that differs from `base` is as expected, to float32's rounding, and no other is touched."""
    merged = merged_weights(base, [(adapter, 1.0)])
    assert merged.keys() == {name for name in expected if not torch.equal(expected[name], base[name])}
    for name, value in merged.items():
        error = (value - expected[name]).abs().max() / expected[name].abs().max()
        assert error <= 1e-6, f"{name} is {error:.1e} off"


@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS)
def test_a_layout_merges_by_the_formula(base, tmp_path, layout: Layout) -> None:
    """Weight + alpha / rank · B @ A, which is computed here in float64."""
    pairs = make_pairs(ranks=(2, 4))
    expected = dict(base)
    for name, (a, b) in pairs.items():
        scale = 1.0 if layout.alpha is None else layout.alpha / len(a)
        expected[f"{name}.weight"] = (base[f"{name}.weight"].double() + scale * (b.double() @ a.double())).float()
    assert_merged(base, load(save(tmp_path / "file", layout.write(pairs))), expected)


@pytest.mark.parametrize(
    "name", ["diffusers", "diffusers with a note", "ComfyUI", "kohya", "DiffSynth", "lightx2v", "old diffusers"]
)
def test_a_layout_means_what_diffusers_reads(tiny_checkpoint, base, tmp_path, name: str) -> None:
    """Where the reference library reads a layout too, it merges to the same weights."""
    path = save(tmp_path / "file.safetensors", LAYOUTS[name].write(make_pairs(ranks=(2, 4))))
    pipeline = Reference(tiny_checkpoint).pipeline
    pipeline.load_lora_weights(tmp_path, weight_name=path.name)
    pipeline.fuse_lora()
    pipeline.unload_lora_weights()
    assert_merged(base, load(path), dict(pipeline.transformer.state_dict()))


def transformer_of(checkpoint: Path) -> QwenImageTransformer2DModel:
    return QwenImageTransformer2DModel.from_pretrained(checkpoint / "transformer", torch_dtype=torch.float32)


def shake(module: nn.Module) -> None:
    """Every trainable value drawn anew: adapters start as no change at all."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in module.parameters():
            if parameter.requires_grad:
                parameter.copy_(0.2 * torch.randn(parameter.shape, generator=generator))


SAVED = {
    "alpha": {"r": 4, "lora_alpha": 6},
    "rank-stabilised": {"r": 4, "lora_alpha": 6, "use_rslora": True},
    "ranks and alphas of their own": {
        "r": 4,
        "lora_alpha": 6,
        "rank_pattern": {"attn.to_q": 2, "^transformer_blocks.1.img_mlp.net.2": 8},
        "alpha_pattern": {"attn.to_q": 1, "img_mod.1": 12},
    },
    "with a bias": {"r": 4, "lora_alpha": 6, "lora_bias": True},
}


@pytest.mark.filterwarnings("ignore:Adapter 'default'. 42 LoRA tensor")  # PEFT takes biases for shards of matrices
@pytest.mark.parametrize("config", SAVED.values(), ids=SAVED)
def test_what_diffusers_saves(tiny_checkpoint, base, tmp_path, config) -> None:
    """An adapter saved with its PEFT config, alpha and ranks in the header alone, is merged as PEFT merges it."""
    transformer = transformer_of(tiny_checkpoint)
    transformer.add_adapter(LoraConfig(target_modules=list(TARGETS), **config))
    shake(transformer)
    QwenImageEditPlusPipeline.save_lora_weights(
        tmp_path,
        transformer_lora_layers=get_peft_model_state_dict(transformer),
        **_collate_lora_metadata({"transformer": transformer}),
    )
    transformer.fuse_lora()
    transformer.unload_lora()
    assert_merged(base, load(tmp_path / "pytorch_lora_weights.safetensors"), dict(transformer.state_dict()))


CONFIGS = {
    "LoRA": lambda: LoraConfig(target_modules=list(TARGETS), r=4, lora_alpha=4),
    "LoHa": lambda: LoHaConfig(target_modules=list(TARGETS), r=4, alpha=4),
    "LoKr": lambda: LoKrConfig(target_modules=list(TARGETS), r=2, alpha=2, decompose_both=True, decompose_factor=8),
}


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
def test_what_peft_saves(tiny_checkpoint, base, tmp_path, config: Callable[[], PeftConfig]) -> None:
    """PEFT's own files, whose scale of 1 stands in a file beside them."""
    model = get_peft_model(transformer_of(tiny_checkpoint), config())
    shake(model)
    model.save_pretrained(tmp_path)
    merged = model.merge_and_unload().state_dict()
    assert_merged(base, load(tmp_path / "adapter_model.safetensors"), dict(merged))


NETWORKS = {
    "LoCon": {"algo": "lora"},
    "LoHa": {"algo": "loha"},
    "LoKr": {"algo": "lokr"},
    "LoKr, both in factors": {"algo": "lokr", "decompose_both": True, "factor": 16, "linear_dim": 2},
    "LoKr, neither": {"algo": "lokr", "full_matrix": True},
    "rank-stabilised": {"algo": "loha", "rs_lora": True},
}


@pytest.mark.parametrize("options", NETWORKS.values(), ids=NETWORKS)
def test_what_lycoris_saves(tiny_checkpoint, base, tmp_path, options) -> None:
    """Merging does to a layer what the trained network did beside it.

    Held to the layers' outputs: LyCORIS' own merging of LoHa and LoKr multiplies by alpha over rank twice.
    """
    transformer = transformer_of(tiny_checkpoint)
    LycorisNetwork.apply_preset({"target_module": ["QwenImageTransformer2DModel"], "target_name": []})
    network = create_lycoris(transformer, 1.0, **{"linear_dim": 4, "linear_alpha": 2.0, **options})
    network.apply_to()
    shake(network)
    names = {module: name for name, module in transformer.named_modules()}
    expected = dict(base)
    for layer in network.loras:
        linear = layer.org_module[0]
        with torch.no_grad():
            inputs = torch.eye(linear.in_features)
            change = layer(inputs) - layer.org_forward(inputs)
        expected[f"{names[linear]}.weight"] = base[f"{names[linear]}.weight"] + change.T
    network.save_weights(str(tmp_path / "file.safetensors"), torch.float32, {})
    adapter = load(tmp_path / "file.safetensors")
    assert {name.removesuffix(".weight") for name in adapter} == {names[layer.org_module[0]] for layer in network.loras}
    merged = merged_weights(base, [(adapter, 1.0)])
    for name, value in merged.items():
        assert (value - expected[name]).abs().max() <= 2e-6 * (1 + value.abs().max()), name


def test_differences_of_weights_and_biases(base, tmp_path) -> None:
    """What LyCORIS and ComfyUI keep whole: differences of matrices, norms and biases, added as they are."""
    generator = torch.Generator().manual_seed(0)
    names = ("img_in.weight", "img_in.bias", "transformer_blocks.0.attn.norm_q.weight", "txt_norm.weight")
    changes = {name: torch.randn(base[name].shape, generator=generator) for name in names}
    ends = {"weight": "diff", "bias": "diff_b"}
    tensors = {
        "lycoris_" + name.rpartition(".")[0].replace(".", "_") + f".{ends[name.rpartition('.')[2]]}": change
        for name, change in changes.items()
    }
    tensors["lycoris_txt_norm.w_norm"] = tensors.pop("lycoris_txt_norm.diff")
    expected = base | {name: base[name] + change for name, change in changes.items()}
    assert_merged(base, load(save(tmp_path / "file", (tensors, {}))), expected)


@pytest.mark.filterwarnings("ignore:Already found a `peft_config`")
def test_a_picture_under_three_adapters(tiny_checkpoint, base, tmp_path) -> None:
    """Every stage is the reference's with PEFT's layers beside its weights; and each of the adapters shows."""
    files = {
        name: save(tmp_path / f"{index}.safetensors", LAYOUTS[name].write(make_pairs(ranks=(2, 4), seed=index)))
        for index, name in enumerate(STRENGTHS)
    }
    reference = Reference(tiny_checkpoint)
    for name, path in files.items():
        reference.pipeline.load_lora_weights(tmp_path, weight_name=path.name, adapter_name=name)
    reference.pipeline.set_adapters(list(STRENGTHS), list(STRENGTHS.values()))
    adapters = {name: load(path) for name, path in files.items()}
    edit, pictures = an_edit(pictures=2, steps=3), some_pictures(2)

    def run(*chosen: str):
        merged = merged_weights(base, [(adapters[name], STRENGTHS[name]) for name in chosen])
        folder = write_checkpoint(tiny_checkpoint, tmp_path / "-".join(chosen), base | merged)
        return run_stages(Engine.load(folder, device="cpu", dtype="float32"), edit, pictures)

    ours = run(*STRENGTHS)
    assert_alike(ours, reference.edit(edit, pictures))
    engine = Engine.load(tiny_checkpoint, device="cpu", dtype="float32")
    asked = [
        AdapterFile(path=path.with_name(f"{path.name} canonical"), digest=name, strength=STRENGTHS[name])
        for name, path in files.items()
    ]
    for order in (asked, asked[::-1]):
        made = engine.make(edit, engine.prepare(edit, pictures), lambda _: None, order)
        assert levels_between(ours.picture, np.asarray(made.image) / 255) <= 1.01
    for left_out in STRENGTHS:
        without = run(*(name for name in STRENGTHS if name != left_out))
        assert levels_between(ours.picture, without.picture) >= 3, f"{left_out} makes no difference"


def write_checkpoint(original: Path, folder: Path, transformer: Mapping[str, Tensor]) -> Path:
    shutil.copytree(original, folder, ignore=shutil.ignore_patterns("diffusion_pytorch_model-*", "*.index.json"))
    for part in ("vae", "text_encoder"):
        shutil.copytree(original / part, folder / part, dirs_exist_ok=True)
    save_file(dict(transformer), folder / "transformer" / "diffusion_pytorch_model.safetensors")
    return folder
