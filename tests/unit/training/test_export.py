import json
from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from darkroom.checkpoint.declaration import read_declaration
from darkroom.edit import Edit, ImageFormat, Output, PictureRef
from darkroom.engine.engine import Engine, make_noise
from darkroom.engine.vae import pack, unpack
from darkroom.lora.base import Base
from darkroom.lora.convert import AdapterFile, convert
from training.config import Config
from training.export import LORAS, export, stored
from training.fast_stage import FAST
from training.joint_stage import JointRun
from training.latents import Batch
from training.model import GRID, Editor
from training.pool import save
from training.transformer_twin import ADAPTED, Adapter, adapter_key
from training.world.jobs import PRESETS

CPU = torch.device("cpu")


@pytest.fixture
def run(small: Config, run_folder: Path) -> JointRun:
    """A run after one step, saved, whose weights are scaled so that every adapter and gate moves the picture."""
    run = JointRun(small, run_folder, run_folder / "vae" / "finished.pt", device=CPU, compiled=False)
    run.advance()
    draw = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, parameter in run.averaged.named_parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=draw))
            parameter.copy_(stored(name.removeprefix("transformer."), parameter))
    run.save()
    return run


@pytest.mark.parametrize("merged", [(), ("texture_apply", "relight")])
def test_the_engine_makes_what_the_trained_model_makes(
    run: JointRun, small: Config, run_folder: Path, merged: tuple[str, ...]
):
    """Tokens, positions, latents, weights and merged adapters: a step of the exported checkpoint is the twins' step."""
    export(small, run_folder, run_folder / "made")
    pictures = torch.load(run_folder / "pool" / "judged.pt", weights_only=True)[:2]
    asked = Edit(
        prompt="Apply the texture of image 2 to the mug.",
        negative_prompt=None,
        pictures=(PictureRef(field="image_1", blob="1"), PictureRef(field="image_2", blob="2")),
        aspect_ratio=None,
        seed=7,
        num_inference_steps=1,
        true_cfg_scale=1.0,
        output=Output(format=ImageFormat.PNG, quality=100),
    )
    engine = Engine.load(run_folder / "made", device="cpu", dtype="float32")
    images = [Image.fromarray(picture.permute(1, 2, 0).numpy()) for picture in pictures]
    loras = [_converted(run_folder / "made", name) for name in merged]
    made = engine.make(asked, engine.prepare(asked, images), lambda _: None, loras).image
    ours = _one_step(run, asked, pictures, merged)
    off = (torch.frombuffer(bytearray(made.tobytes()), dtype=torch.uint8).view(128, 128, 3).int() - ours.int()).abs()
    assert off.max() <= 1


def test_every_preset_has_its_file_and_the_manifest_knows_every_file(run: JointRun, small: Config, run_folder: Path):
    """LoRAs lie beside the checkpoint in diffusers' names; digests cover all that ships."""
    del run
    made = run_folder / "made"
    export(small, run_folder, made)
    for preset in PRESETS:
        names = load_file(made / LORAS / f"{preset}.safetensors").keys()
        assert "transformer.transformer_blocks.0.attn.to_out.0.lora_B.weight" in names
    declared = read_declaration(made)
    assert declared.guidance_scale == 1.0
    assert declared.loras == {preset: made / LORAS / f"{preset}.safetensors" for preset in PRESETS}
    listed = json.loads((made / "manifest.json").read_text())
    there = {path.relative_to(made).as_posix() for path in made.rglob("*") if path.is_file()}
    assert listed.keys() == there - {"manifest.json"}


def test_the_8_step_lora_is_there_once_it_is_trained(run: JointRun, small: Config, run_folder: Path):
    """Under the name that go_fast looks for, with what was trained in it."""
    save(run.averaged.state_dict(), run_folder / "joint" / "finished.pt")
    fast = Adapter(small.transformer, small.transformer.rank(FAST))
    save(fast.state_dict(), run_folder / FAST / "finished.pt")
    export(small, run_folder, run_folder / "made")
    file = read_declaration(run_folder / "made").loras["lightning_8_steps"]
    assert file == run_folder / "made" / LORAS / "lightning_8_steps.safetensors"
    written = load_file(file)["transformer.transformer_blocks.1.attn.to_q.lora_A.weight"]
    assert torch.equal(written, fast.state_dict()[f"down.{adapter_key(1, 'attn.to_q')}"].bfloat16())


@torch.no_grad()
def test_adapters_beside_the_weights_are_adapters_in_them(run: JointRun):
    """What is trained beside the weights is what a merge computes, and each adapter matters."""
    editor = Editor(run.config, tokens=run.vocabulary.rows, image_token=run.vocabulary.image_token, dtype=torch.float32)
    editor.load_state_dict(run.averaged.state_dict())
    batch = run.pool.draw("texture_apply", 2, torch.Generator().manual_seed(0))
    noise = torch.randn(batch.target.shape, generator=torch.Generator().manual_seed(1))
    bare = editor(batch, noise, torch.ones(2), ())
    one = editor(batch, noise, torch.ones(2), ("texture_apply",))
    two = editor(batch, noise, torch.ones(2), ("texture_apply", "relight"))
    for block, module in enumerate(editor.transformer.transformer_blocks):
        for name in ADAPTED:
            for adapter in ("texture_apply", "relight"):
                module.get_parameter(f"{name}.weight").add_(editor.adapters[adapter].change(block, name))
    assert torch.allclose(editor(batch, noise, torch.ones(2), ()), two, atol=1e-4)
    assert (bare - one).abs().max() > 1e-2
    assert (one - two).abs().max() > 1e-2


@torch.no_grad()
def _one_step(run: JointRun, asked: Edit, pictures: torch.Tensor, merged: tuple[str, ...]) -> torch.Tensor:
    """The twins' answer in float32: H × W × 3."""
    words = run.vocabulary
    editor = Editor(run.config, tokens=words.rows, image_token=words.image_token, dtype=torch.float32)
    editor.load_state_dict(run.averaged.state_dict())
    twin = run.coder.twin
    for parameter in twin.parameters():
        parameter.copy_(parameter.bfloat16())
    latents = torch.cat([_encode(run, picture) for picture in pictures], dim=1)
    rest = torch.tensor([words.rest(asked.prompt)])
    batch = Batch(
        opening=torch.tensor(words.opening(2)),
        rest=rest,
        padded=torch.zeros_like(rest, dtype=torch.bool),
        pictures=latents,
        target=latents,
        changed=torch.zeros(0),
        count=2,
    )
    noise = make_noise(asked.seed, *GRID, channels=16)
    tokens = noise - editor(batch, noise, torch.ones(1), merged)
    coder = run.coder
    picture = twin.decode(unpack(tokens, *GRID) * coder.std + coder.mean).clamp(-1, 1)
    return ((picture[0] / 2 + 0.5) * 255).round().to(torch.uint8).permute(1, 2, 0)


def _converted(checkpoint: Path, name: str) -> AdapterFile:
    """One of its LoRAs, as a worker has it."""
    path = checkpoint.parent / f"{name}.safetensors"
    convert(read_declaration(checkpoint).loras[name], path, Base(str(checkpoint)).known_modules())
    return AdapterFile(path=path, digest=name, strength=1.0)


def _encode(run: JointRun, picture: torch.Tensor) -> torch.Tensor:
    coder = run.coder
    latents = coder.twin.encode(picture[None].float() / 127.5 - 1)
    return pack(((latents - coder.mean) / coder.std).contiguous())
