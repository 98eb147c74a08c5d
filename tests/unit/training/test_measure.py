import torch

from training.measure import changed_area, changed_tokens, psnr_db


def test_changed_area_is_grown_by_two():
    """A single changed pixel makes a 5 × 5 area; differences too small to see make none."""
    before = torch.full((1, 3, 32, 32), 100, dtype=torch.uint8)
    truth = before.clone()
    truth[0, 1, 10, 20] = 160
    truth[0, :, 28, 28] = 104
    area = changed_area(truth, before)
    assert area.sum() == 25
    assert area[0, 8:13, 18:23].all()
    assert changed_tokens(area, 16)[0].tolist() == [False, True, False, False]


def test_psnr_is_of_the_area_asked_for():
    """10 levels off everywhere is 28.1 dB; an area without error reads as the cap, whatever happens outside it."""
    truth = torch.full((1, 3, 8, 8), 100, dtype=torch.uint8)
    made = truth + 10
    made[:, :, :4] = 100
    upper = torch.zeros(1, 8, 8, dtype=torch.bool)
    upper[:, :4] = True
    assert torch.allclose(psnr_db(made, truth, ~upper), torch.tensor([28.13]), atol=0.01)
    assert psnr_db(made, truth, upper) > 60
    assert 28.2 < psnr_db(made, truth) < 32
