import dataclasses

import pytest
import torch

from darkroom.engine.rope import joint_rope
from darkroom.engine.transformer import Joint, Transformer, TransformerConfig
from darkroom.errors import BadCheckpoint

CONFIG = TransformerConfig(
    num_layers=2, attention_head_dim=32, num_attention_heads=2, joint_attention_dim=48, axes_dims_rope=(8, 12, 12)
)
GRIDS = [(2, 3), (4, 2)]
RESULT, REFERENCES, TEXT = 6, 8, 5


@pytest.fixture(params=[False, True], ids=["2509", "2511"])
def transformer(request):
    torch.manual_seed(0)
    model = Transformer(dataclasses.replace(CONFIG, zero_cond_t=request.param)).eval()
    for name, parameter in model.named_parameters():
        if "mod.1" in name:
            torch.nn.init.normal_(parameter, std=0.2)
    return model


@torch.inference_mode()
def test_the_last_block_computes_what_a_whole_one_would(transformer):
    """The result's tokens after `result` are those after `forward`."""
    image, text = torch.randn(1, RESULT + REFERENCES, CONFIG.dim), torch.randn(1, TEXT, CONFIG.dim)
    rope = joint_rope(TEXT, GRIDS, CONFIG.axes_dims_rope, torch.device("cpu"))
    modulation = transformer.modulation([1000.0, 400.0]).at(1).blocks[1]
    block = transformer.blocks[1]
    joint = Joint(text_tokens=(TEXT,), ropes=(rope,), result_tokens=RESULT)
    whole, _ = block(image, text, modulation, joint)
    torch.testing.assert_close(block.result(image, text, modulation, joint), whole[:, :RESULT])


@torch.inference_mode()
def test_two_prompts_in_one_batch_do_not_see_each_other(transformer):
    """The velocity under each of two prompts, of different lengths, is that of the prompt alone."""
    latents = torch.randn(1, RESULT, CONFIG.in_channels)
    references = torch.randn(1, REFERENCES, CONFIG.dim)
    prompts = [torch.randn(1, tokens, CONFIG.dim) for tokens in (TEXT, TEXT + 3)]
    ropes = [joint_rope(prompt.shape[1], GRIDS, CONFIG.axes_dims_rope, torch.device("cpu")) for prompt in prompts]
    at = transformer.modulation([700.0]).at(0)

    def velocity(*chosen):
        joint = Joint(
            text_tokens=tuple(prompts[n].shape[1] for n in chosen),
            ropes=tuple(ropes[n] for n in chosen),
            result_tokens=RESULT,
        )
        return transformer(latents, references, torch.cat([prompts[n] for n in chosen], dim=1), at, joint)

    torch.testing.assert_close(velocity(0, 1), torch.cat([velocity(0), velocity(1)]))


@torch.inference_mode()
def test_a_step_of_the_table_is_what_the_step_alone_gives(transformer):
    """Computing modulation for all steps at once changes none of them."""
    table, alone = transformer.modulation([1000.0, 640.0, 20.0]).at(1), transformer.modulation([640.0]).at(0)
    torch.testing.assert_close(table.out, alone.out)
    for block, expected in zip(table.blocks, alone.blocks, strict=True):
        torch.testing.assert_close(block.image, expected.image)
        torch.testing.assert_close(block.text, expected.text)


def test_the_config_is_read_strictly_where_it_matters():
    """Variants this model has not are refused by name; entries it has no use for are not its business."""
    with pytest.raises(BadCheckpoint, match="guidance_embeds"):
        TransformerConfig.read({"guidance_embeds": True})
    with pytest.raises(BadCheckpoint, match="attention_head_dim"):
        TransformerConfig.read({"axes_dims_rope": [8, 8, 8]})
    published = TransformerConfig.read({"_class_name": "QwenImageTransformer2DModel", "pooled_projection_dim": 768})
    assert published == TransformerConfig()
    assert published.dim == 3072
