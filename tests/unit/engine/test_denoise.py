import torch

from darkroom.engine.denoise import guide


def test_guidance_goes_away_from_the_negative_at_the_positives_length():
    """The direction is extrapolated by the scale; every token keeps the positive prediction's length."""
    positive, negative = torch.randn((2, 1, 7, 64), generator=torch.Generator().manual_seed(0))
    guided = guide(positive, negative, 4.0)
    combined = negative + 4 * (positive - negative)
    torch.testing.assert_close(guided.norm(dim=-1), positive.norm(dim=-1))
    torch.testing.assert_close(torch.cosine_similarity(guided, combined, dim=-1), torch.ones(1, 7))


def test_a_scale_of_one_is_the_positive_alone():
    """Guidance by 1 changes nothing."""
    positive, negative = torch.randn((2, 1, 7, 64), generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(guide(positive, negative, 1.0), positive)
