import json

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import save_file

from darkroom.checkpoint.quantised import with_scales
from darkroom.checkpoint.weights import read_weights
from darkroom.errors import BadCheckpoint

FLOAT8 = torch.zeros(4, 3, dtype=torch.float8_e4m3fn)


def note(**entries):
    return torch.tensor(list(json.dumps(entries).encode()), dtype=torch.uint8)


@pytest.fixture
def stored(tmp_path):
    def store(tensors):
        save_file(tensors, tmp_path / "model.safetensors")
        return read_weights(tmp_path, "model")

    return store


def test_plain_8_bit_floats_are_values_as_they_are(stored):
    """A file without scales has none made up."""
    assert with_scales(stored({"a.weight": FLOAT8, "a.bias": torch.ones(4)}))["a.weight"].scale is None


def test_what_belongs_to_scaling_is_folded_into_its_weight(stored):
    """Of ComfyUI's scaled file the weights are left, each with its scale."""
    tensors = stored(
        {
            "a.weight": FLOAT8,
            "a.scale_weight": torch.tensor(0.5),
            "a.scale_input": torch.tensor(2.0),
            "b.weight": FLOAT8.to(torch.float8_e5m2),
            "b.weight_scale": torch.ones(4, 1),
            "b.input_scale": torch.ones(1),
            "b.comfy_quant": note(format="float8_e5m2", full_precision_matrix_mult=True),
            "norm.weight": torch.ones(4),
            "scaled_fp8": torch.zeros(0, dtype=torch.float8_e4m3fn),
        }
    )
    folded = with_scales(tensors)
    assert folded.keys() == {"a.weight", "b.weight", "norm.weight"}
    assert {name: tensor.scale and tensor.scale.key for name, tensor in folded.items()} == {
        "a.weight": "a.scale_weight",
        "b.weight": "b.weight_scale",
        "norm.weight": None,
    }


@pytest.mark.parametrize("orphan", ["b.scale_weight", "b.weight_scale", "b.scale_input", "b.comfy_quant"])
def test_a_scale_without_its_weight_is_left_to_be_told(stored, orphan):
    """It is not dropped in silence: comparing with what is needed will name it."""
    value = note(format="float8_e4m3fn") if orphan == "b.comfy_quant" else torch.ones(1)
    tensors = stored({"a.weight": FLOAT8, orphan: value})
    if orphan == "b.comfy_quant":
        with pytest.raises(BadCheckpoint, match=r"b\.comfy_quant"):
            with_scales(tensors)
    else:
        assert orphan in with_scales(tensors)


def test_two_scales_of_one_weight_are_refused(stored):
    """Neither is chosen, and they are not both taken."""
    tensors = stored({"a.weight": FLOAT8, "a.scale_weight": torch.ones(1), "a.weight_scale": torch.ones(1)})
    with pytest.raises(BadCheckpoint, match=r"a\.weight has two scales"):
        with_scales(tensors)


@pytest.mark.parametrize(
    ("scale", "told"),
    [
        (torch.ones(2, 1), r"\[2, 1\]"),
        (torch.ones(4, 3), r"\[4, 3\]"),
        (torch.ones(1, 4), r"\[1, 4\]"),
        (torch.ones(3), r"\[3\]"),
        (torch.ones(0), r"\[0\]"),
        (torch.ones(4, dtype=torch.uint8), "U8"),
    ],
)
def test_scales_of_another_shape_are_refused(stored, scale, told):
    """Blocks, columns or nothing: the error says what there is and what is read."""
    with pytest.raises(BadCheckpoint, match=rf"a\.weight_scale is .*{told}.* use the model's files in bfloat16"):
        with_scales(stored({"a.weight": FLOAT8, "a.weight_scale": scale}))


@pytest.mark.parametrize(
    ("name", "form"),
    [
        ("a.qweight", "GPTQ"),
        ("a.weight.absmax", "bitsandbytes"),
        ("a.SCB", "bitsandbytes"),
        ("a.weight_scale_inv", "blocks"),
        ("a.weight_scale_2", "4-bit"),
    ],
)
def test_other_forms_of_quantised_weights_are_refused_by_name(stored, name, form):
    """Integers, 4 bits and blocks: the error names the tensor, the form and what to use."""
    with pytest.raises(BadCheckpoint, match=rf"{name} belongs to .*{form}.* use the model's files in bfloat16"):
        with_scales(stored({"a.weight": FLOAT8, name: torch.ones(4, 1)}))


@pytest.mark.parametrize("dtype", [torch.int8, torch.uint8, torch.int32])
def test_integers_are_never_taken_for_weights(stored, dtype):
    """Not even with a scale beside them."""
    with pytest.raises(BadCheckpoint, match=r"a\.weight is stored as [IU]\d+, which is not read; use"):
        with_scales(stored({"a.weight": torch.ones(4, 3, dtype=dtype), "a.weight_scale": torch.ones(4, 1)}))


@pytest.mark.parametrize(
    ("said", "told"),
    [
        (note(format="nvfp4"), "nvfp4"),
        (note(format="int8_tensorwise", convrot=True), "int8_tensorwise"),
        (note(scale=1), "no note"),
        (note(format="float8_e4m3fn")[:-2].clone(), "no note"),
    ],
)
def test_a_note_on_another_format_is_refused(stored, said, told):
    """What a layer says of itself is read, not guessed."""
    with pytest.raises(BadCheckpoint, match=rf"a\.comfy_quant .*{told}"):
        with_scales(stored({"a.weight": FLOAT8, "a.weight_scale": torch.ones(1), "a.comfy_quant": said}))


@given(
    scaled=st.sets(st.integers(0, 9)),
    words=st.lists(st.sampled_from(["scale_weight", "weight_scale"]), min_size=10, max_size=10),
)
def test_a_scale_goes_to_its_own_weight(tmp_path_factory, scaled, words):
    """Whichever of the layers have one, and in whichever words: no weight has another's."""
    folder = tmp_path_factory.mktemp("scales")
    tensors = {f"{layer}.weight": FLOAT8 for layer in range(10)}
    tensors |= {f"{layer}.{words[layer]}": torch.tensor(float(layer)) for layer in scaled}
    save_file({name: value.clone() for name, value in tensors.items()}, folder / "model.safetensors")
    folded = with_scales(read_weights(folder, "model"))
    assert {name: tensor.scale and tensor.scale.key for name, tensor in folded.items()} == {
        f"{layer}.weight": f"{layer}.{words[layer]}" if layer in scaled else None for layer in range(10)
    }
