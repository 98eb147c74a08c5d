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


def test_turning_keeps_lengths_and_depends_on_distance_alone():
    """Two vectors keep their lengths, and their product is the same wherever they stand at the same distance."""
    rope = joint_rope(64, [(2, 2)], AXES, CPU)
    generator = torch.Generator().manual_seed(0)
    query, key = torch.randn((2, sum(AXES)), generator=generator)
    queries = rope.rows(0, 64).rotate(query.expand(1, 64, 1, -1))[0, :, 0]
    keys = rope.rows(0, 64).rotate(key.expand(1, 64, 1, -1))[0, :, 0]
    torch.testing.assert_close(queries.norm(dim=-1), query.norm().expand(64))
    products = (queries[:-5] * keys[5:]).sum(dim=-1)
    torch.testing.assert_close(products, products[0].expand(59), rtol=1e-4, atol=1e-4)


def test_rotation_comes_back_in_the_dtype_it_was_given():
    """bfloat16 in, bfloat16 out, though the turning is done in float32."""
    rope = joint_rope(1, [(1, 1)], AXES, CPU)
    assert rope.rotate(torch.ones(1, 2, 1, sum(AXES), dtype=torch.bfloat16)).dtype == torch.bfloat16
