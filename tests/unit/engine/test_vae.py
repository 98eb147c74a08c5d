import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from darkroom.engine.decode import decode
from darkroom.engine.vae import pack, unpack
from darkroom.errors import EngineFailed


@given(rows=st.integers(1, 6), columns=st.integers(1, 6))
def test_unpacking_undoes_packing(rows, columns):
    """Tokens hold the latents, whatever the ratio."""
    latents = torch.randn(1, 16, 2 * rows, 2 * columns)
    tokens = pack(latents)
    assert tokens.shape == (1, rows * columns, 64)
    assert torch.equal(unpack(tokens, rows, columns), latents)


def test_a_token_is_a_square_of_its_picture():
    """Channels of a token run by latent channel, then row, then column of its 2 × 2 latents."""
    latents = torch.arange(2 * 4 * 4).view(1, 2, 4, 4)
    assert pack(latents)[0, 1].tolist() == [2, 3, 6, 7, 18, 19, 22, 23]


def test_latents_that_are_no_numbers_are_no_picture(engine):
    """A black picture is never handed out for a failed one."""
    with torch.inference_mode(), pytest.raises(EngineFailed, match="not finite"):
        decode(engine._models.vae, torch.full((1, 4, 64), torch.nan), width_px=32, height_px=32)
