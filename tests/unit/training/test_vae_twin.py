import pytest
import torch
from diffusers import AutoencoderKLQwenImage

from training.config import VaeSizes
from training.vae_twin import VaeTwin, unfold


def test_the_published_vae_computes_what_its_twin_does():
    """Unfolded into three dimensions, the twin's weights encode and decode a single picture the same."""
    sizes = VaeSizes(base_dim=4)
    torch.manual_seed(0)
    twin = VaeTwin(sizes)
    published = AutoencoderKLQwenImage(base_dim=4, num_res_blocks=sizes.num_res_blocks)
    shapes = {name: tuple(value.shape) for name, value in published.state_dict().items()}
    published.load_state_dict(unfold(twin.state_dict(), shapes))
    pictures = torch.rand(2, 3, 64, 64) * 2 - 1
    with torch.no_grad():
        latents = published.encode(pictures[:, :, None]).latent_dist.mode()
        made = published.decode(latents).sample
        assert torch.allclose(latents[:, :, 0], twin.encode(pictures), atol=1e-5)
        assert torch.allclose(made[:, :, 0], twin.decode(latents[:, :, 0]).clamp(-1, 1), atol=1e-5)


def test_a_weight_the_published_vae_lacks_is_an_error():
    """Nothing trained is left out silently."""
    with pytest.raises(ValueError, match="stray"):
        unfold({"stray": torch.zeros(1)}, {})
