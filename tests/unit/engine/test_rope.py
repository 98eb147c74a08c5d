import torch

from darkroom.engine.rope import joint_rope

AXES = (8, 12, 12)
CPU = torch.device("cpu")


def test_text_lies_past_the_widest_picture_and_pictures_are_centred():
    """The joint order is text, result, references; a token's angle is its position times its axis's frequencies."""
    rope = joint_rope(2, [(2, 3), (1, 6)], AXES, CPU)
    assert rope.cos.shape == (2 + 6 + 6, sum(AXES) // 2)
    # The first frequency of each axis is 1, so its angle is the position itself.
    first = torch.tensor([0, AXES[0] // 2, (AXES[0] + AXES[1]) // 2])
    positions = torch.atan2(rope.sin[:, first], rope.cos[:, first]).round().int().tolist()
    assert positions == [
        [3, 3, 3],
        [-2, -2, -2],  # 4 radians
        *([0, row, column] for row in (-1, 0) for column in (-2, -1, 0)),
        *([1, -1, column] for column in (-3, -2, -1, 0, 1, 2)),
    ]
