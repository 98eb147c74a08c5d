"""Our VAE against the reference's, and against itself in strips."""

from dataclasses import replace

import pytest
import torch
from diffusers import AutoencoderKLQwenImage
from torch import nn

from darkroom.checkpoint.layout import read_component
from darkroom.checkpoint.locate import NANO
from darkroom.engine import attention, vae_model
from darkroom.engine.vae import Vae
from darkroom.engine.vae_model import RmsNorm, UpConv, through
from darkroom.engine.vae_strips import make_strips
from darkroom.errors import BadCheckpoint

SIZES = [(32, 32), (96, 160), (224, 64)]


def load(folder, dtype=torch.float32, memory_bytes=None):
    component = read_component(folder, "vae", {"vae": "AutoencoderKLQwenImage"})
    return Vae.load(component, device=torch.device("cpu"), dtype=dtype, memory_bytes=memory_bytes)


class Reference:
    """The published class on the same checkpoint, taking and giving what ours does."""

    def __init__(self, folder, dtype=torch.float32):
        self._model = AutoencoderKLQwenImage.from_pretrained(folder / "vae", torch_dtype=dtype)
        self._dtype = dtype

    def encode(self, pictures):
        return self._model.encode(pictures[:, :, None].to(self._dtype)).latent_dist.mode()[:, :, 0]

    def decode(self, latents):
        return self._model.decode(latents[:, :, None].to(self._dtype)).sample[:, :, 0]


@pytest.fixture(params=["random", "trained"])
def folder(request, tiny_checkpoint):
    return tiny_checkpoint if request.param == "random" else NANO


@pytest.fixture(autouse=True)
def no_gradients():
    with torch.inference_mode():
        yield


def pictures(width, height, count=1):
    return torch.rand(count, 3, height, width, generator=torch.Generator().manual_seed(width)) * 2 - 1


def encode(vae, given):
    """Latents as the model has them, neither normalised nor packed."""
    strips = make_strips(vae._config.encoder, latent_rows=given.shape[2] // 8, count=1)
    return vae._model.encode(given.to(vae._mean.dtype), strips)


def decode(vae, latents):
    strips = make_strips(vae._config.decoder, latent_rows=latents.shape[2], count=1)
    return vae._model.decode(latents.to(vae._mean.dtype), strips)


def difference(value, expected):
    """The largest, as a part of the largest value."""
    return ((value.float() - expected).abs().max() / expected.abs().max()).item()


def error(value, expected):
    return ((value.float() - expected).norm() / expected.norm()).item()


def test_it_computes_what_the_reference_does(folder):
    """Encoding and decoding agree to float32's rounding, at every ratio, one picture or two at once."""
    ours, theirs = load(folder), Reference(folder)
    for width, height in SIZES:
        given = pictures(width, height, count=2)
        latents = theirs.encode(given)
        assert difference(encode(ours, given), latents) <= 1e-5
        assert difference(decode(ours, latents), theirs.decode(latents)) <= 1e-5


def test_bfloat16_costs_no_more_than_it_costs_the_reference(folder):
    """Against float32, over several sizes."""
    fine, ours, theirs = Reference(folder), load(folder, torch.bfloat16), Reference(folder, torch.bfloat16)
    errors = []
    for width, height in SIZES:
        given = pictures(width, height)
        latents = fine.encode(given)
        made = fine.decode(latents)
        errors.append([error(encode(ours, given), latents), error(theirs.encode(given), latents)])
        errors.append([error(decode(ours, latents), made), error(theirs.decode(latents), made)])
    of_ours, of_theirs = torch.tensor(errors).mean(0).tolist()
    assert 0 < of_ours <= 1.25 * of_theirs


def test_a_batch_is_its_pictures(tiny_checkpoint):
    """Pictures coded together come out as each on its own, with memory for all at once or for one at a time."""
    alone, short = load(tiny_checkpoint), load(tiny_checkpoint, memory_bytes=1)
    given = pictures(64, 96, count=3)
    tokens = alone.encode(given)
    made = alone.decode(tokens, width_px=64, height_px=96)
    assert tokens.shape == (3, 24, 64)
    assert made.shape == given.shape
    assert difference(tokens, torch.cat([alone.encode(one) for one in given.split(1)])) <= 1e-5
    assert difference(short.encode(given), tokens) <= 1e-5
    assert difference(short.decode(tokens, width_px=64, height_px=96), made) <= 1e-5


@pytest.mark.parametrize("count", [2, 3, 16, 64])
def test_strips_give_the_whole_picture(folder, count):
    """However many: each strip takes in all that its result depends on."""
    vae = load(folder)
    given = pictures(32, 512)
    latents = encode(vae, given)
    made = decode(vae, latents)
    config = vae._config
    assert (
        difference(vae._model.encode(given, make_strips(config.encoder, latent_rows=64, count=count)), latents) <= 1e-5
    )
    assert (
        difference(vae._model.decode(latents, make_strips(config.decoder, latent_rows=64, count=count)), made) <= 1e-5
    )


@pytest.mark.parametrize("side", ["encoder", "decoder"])
@pytest.mark.parametrize("index", range(4))
def test_a_strip_takes_in_no_row_too_few_and_none_too_many(folder, side, index):
    """At each level: with all other rows lost the strip is sound, and with the outermost of its rows lost it is not."""
    vae = load(folder)
    coder, module = getattr(vae._config, side), getattr(vae._model, side)
    levels, scales = module.levels()[index:], coder.scales[index:]
    whole = make_strips(coder, latent_rows=64, count=1)[0][index:]
    strip = make_strips(coder, latent_rows=64, count=7)[3][index:]
    channels = 3 if side == "encoder" and index == 0 else coder.levels[index].inward
    given = torch.randn(1, channels, len(whole[0]), 4 * scales[0])

    def made(kept: range):
        lost = torch.full_like(given, torch.nan)
        lost[:, :, kept.start : kept.stop] = given[:, :, kept.start : kept.stop]
        return through(levels, scales, lost, whole)[:, :, strip[-1].start : strip[-1].stop]

    rows = strip[0]
    # The encoder begins at an even row, which may be one more than it depends on.
    spare = 1 if side == "encoder" and index < 3 else 0
    assert torch.isfinite(made(rows)).all()
    assert torch.isnan(made(range(rows.start + 1 + spare, rows.stop))).any()
    assert torch.isnan(made(range(rows.start, rows.stop - 1))).any()


def test_doubling_is_folded_into_the_convolution():
    """Borders included, it is nearest-neighbour doubling and then the published convolution."""
    torch.manual_seed(0)
    published = nn.Conv2d(6, 3, 3, padding=1)
    ours = UpConv(6, 3)
    ours.weight, ours.bias = nn.Parameter(published.weight.clone()), published.bias
    ours.fold()
    given = torch.randn(2, 6, 5, 7)
    expected = published(nn.functional.interpolate(given, scale_factor=2.0, mode="nearest-exact"))
    assert difference(ours(given), expected) <= 1e-6


def test_a_pixel_of_zeros_stays_so():
    """Nothing is divided by zero, and faint pixels are normalised like bright ones."""
    norm = RmsNorm(4, dims=3, silu=False)
    norm.gamma.fill_(1.0)
    given = torch.zeros(1, 4, 1, 3)
    given[0, :, 0, 1], given[0, :, 0, 2] = 1e-8, 1e4
    assert norm(given)[0, 0, 0].tolist() == pytest.approx([0.0, 1.0, 1.0], rel=1e-5)


def test_a_picture_is_normalised_alike_in_bands_and_in_one_piece():
    """As a CPU does it and as a GPU does; and no pixel is left out where the last band is a narrow one."""
    torch.manual_seed(0)
    norm = RmsNorm(96, dims=3, silu=True)
    norm.gamma.copy_(torch.rand(96, 1, 1, 1))
    given = torch.randn(2, 96, 50, 40).contiguous(memory_format=torch.channels_last)
    expected = nn.functional.silu(nn.functional.normalize(given.double(), dim=1) * 96**0.5 * norm.gamma[:, 0].double())
    assert difference(norm(given), expected) <= 1e-6
    assert difference(norm._normalised(given, norm.gamma), expected) <= 1e-6


@pytest.mark.parametrize("attend", [attention.fused, attention.by_products])
def test_pixels_attend_to_those_of_their_own_picture(attend, monkeypatch):
    """By its formula, whichever way the device takes."""
    monkeypatch.setattr(vae_model, "fused", attend)
    middle = vae_model.Attention(24)
    for parameter in middle.parameters():
        nn.init.normal_(parameter, std=0.3, generator=torch.Generator().manual_seed(parameter.numel()))
    x = torch.randn(2, 24, 5, 7, generator=torch.Generator().manual_seed(0))
    query, key, value = middle.to_qkv(middle.norm(x)).flatten(2).chunk(3, dim=1)
    weights = torch.softmax(torch.einsum("bcq,bck->bqk", query, key) / 24**0.5, dim=-1)
    mixed = torch.einsum("bqk,bck->bcq", weights, value).unflatten(2, (5, 7))
    torch.testing.assert_close(middle(x), x + middle.proj(mixed))


def test_what_one_frame_never_meets_is_not_kept(tiny_checkpoint):
    """No kernel has a side in time, none is a view of a larger one, and convolutions are channels last."""
    model = load(tiny_checkpoint)._model
    for name, value in model.named_parameters():
        assert "time_conv" not in name
        assert value.untyped_storage().nbytes() == value.nbytes, name
        if not name.endswith("gamma"):
            assert value.dim() in (1, 4), name
            assert value.dim() == 1 or value.is_contiguous(memory_format=torch.channels_last), name


@pytest.mark.parametrize(
    ("entry", "told"),
    [
        ({"dim_mult": [1, 2, 4]}, "dim_mult has 3 entries"),
        ({"input_channels": 4}, "input_channels is 4"),
        ({"latents_std": [1.0]}, "latents_mean and latents_std"),
    ],
)
def test_a_config_of_another_model_is_refused(tiny_checkpoint, entry, told):
    """By the name of the entry."""
    component = read_component(tiny_checkpoint, "vae", {"vae": "AutoencoderKLQwenImage"})
    other = replace(component, config={**component.config, **entry})
    with pytest.raises(BadCheckpoint, match=told):
        Vae.load(other, device=torch.device("cpu"), dtype=torch.float32)
