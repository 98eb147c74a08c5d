import pytest
import torch
from transformers import Qwen2_5_VLConfig, Qwen2_5_VLModel

from darkroom.checkpoint.layout import read_layout
from darkroom.engine.prepare import Seen, see
from darkroom.engine.text import DROPPED_TOKENS, PREFIX, TextEncoder, rope_positions
from darkroom.errors import BadCheckpoint
from edits import some_pictures

GRIDS = ((4, 6), (8, 2))


@pytest.fixture(scope="module")
def text(engine):
    return engine._models.text


def test_the_prefix_is_dropped_to_the_token(text):
    """What is left begins with the first picture's words."""
    ids = text.tokenize("Turn it red.", GRIDS)
    tokens = text._tokenizer.convert_ids_to_tokens(ids)
    assert text._tokenizer.decode(ids[:DROPPED_TOKENS]) == PREFIX
    assert tokens[DROPPED_TOKENS] == "Picture"
    assert tokens.count("<|image_pad|>") == 4 * 6 // 4 + 8 * 2 // 4


@pytest.mark.parametrize("prompt", ["<|im_end|>", "a <|image_pad|> b", "<|vision_start|><|image_pad|><|vision_end|>"])
def test_a_prompt_can_t_speak_in_special_tokens(text, prompt):
    """Spelling a special token in a prompt neither ends the turn nor adds a picture."""
    plain, spelled = text.tokenize("", GRIDS), text.tokenize(prompt, GRIDS)
    special = set(text._tokenizer.all_special_ids)
    assert [token for token in spelled if token in special] == [token for token in plain if token in special]
    assert prompt in text._tokenizer.decode(spelled)


@pytest.mark.parametrize("prompt", ["Turn it red.", "", " ", "把镜头转为俯视", "two\nlines ", "🙂"])
def test_a_prompt_in_parts_has_the_tokens_of_the_whole(text, prompt):
    """Reading the prompt apart from what is around it changes no token."""
    whole = text._tokenizer(text._tokenizer.decode(text.tokenize(prompt, GRIDS)), add_special_tokens=False)
    assert whole["input_ids"] == text.tokenize(prompt, GRIDS)


def test_positions_are_those_of_the_text_encoder_itself(text, tiny_checkpoint):
    """Text counts on, pictures spread over rows and columns: as transformers has it for marked image tokens."""
    ids = torch.tensor([text.tokenize("Turn it red.", GRIDS)])
    marks = ids == text._image_token
    config = Qwen2_5_VLConfig.from_dict(dict(read_layout(tiny_checkpoint).text_encoder.config))
    expected, _ = Qwen2_5_VLModel(config).get_rope_index(
        ids, mm_token_type_ids=marks.int(), image_grid_thw=torch.tensor([(1, *grid) for grid in GRIDS])
    )
    assert torch.equal(rope_positions(marks[0].tolist(), GRIDS), expected[:, 0])


@torch.inference_mode()
def test_one_look_serves_every_prompt(engine, text):
    """Encoding a second prompt needs no second look, and gives what it would alone."""
    patches, grid = see(some_pictures(1)[0], engine._vision)
    seen = Seen(patches=torch.from_numpy(patches), grids=(grid,), digest=b"")
    features = text.look(seen)
    first = text.encode("Turn it red.", features, seen.grids)
    second = text.encode(" ", features, seen.grids)
    assert torch.equal(first, text.encode("Turn it red.", text.look(seen), seen.grids))
    assert second.shape[1] < first.shape[1]


def test_the_head_is_not_loaded(text):
    """Of the text encoder only hidden states are read, so nothing of the size of its vocabulary but the embedding."""
    large = [name for name, parameter in text._model.named_parameters() if parameter.shape[0] >= 512]
    assert large == ["language_model.embed_tokens.weight"]


def load(folder):
    layout = read_layout(folder)
    return TextEncoder.load(layout.text_encoder, layout.tokenizer, device=torch.device("cpu"), dtype=torch.float32)


def test_a_tokenizer_of_another_model_is_refused(folder, change):
    """Tokenizer and config must agree on which token stands for a picture."""
    change("text_encoder/config.json", image_token_id=3)
    with pytest.raises(BadCheckpoint, match="image_pad"):
        load(folder)


def test_a_tokenizer_that_cuts_the_prefix_otherwise_is_refused(folder):
    """The hidden states dropped must be the prefix's and no others."""
    merges = folder / "tokenizer" / "merges.txt"
    merges.write_text("".join(merges.read_text(encoding="utf-8").splitlines(keepends=True)[:-40]), encoding="utf-8")
    with pytest.raises(BadCheckpoint, match="not 64"):
        load(folder)


def test_a_broken_tokenizer_is_named(folder):
    """A file that is no vocabulary is an error of the checkpoint."""
    (folder / "tokenizer" / "vocab.json").write_text("[]")
    with pytest.raises(BadCheckpoint, match="tokenizer"):
        load(folder)
