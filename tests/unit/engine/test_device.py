import json
import subprocess
import sys

import pytest
import torch

from darkroom.engine.device import choose_device, choose_dtype, describe
from darkroom.errors import BadSetting

CPU = torch.device("cpu")


def test_a_named_precision_is_kept():
    """Only auto is decided here."""
    assert choose_dtype("float32", torch.device("cuda")) == torch.float32
    assert choose_dtype("bfloat16", CPU) == torch.bfloat16


@pytest.mark.parametrize(
    ("capabilities", "dtype"),
    [({}, torch.float32), ({"avx512_bf16": True}, torch.bfloat16), ({"amx_bf16": True}, torch.bfloat16)],
)
def test_auto_is_bfloat16_where_the_processor_multiplies_it(monkeypatch, capabilities, dtype):
    """A processor without the instructions would emulate them, slower than float32."""
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities)
    assert choose_dtype("auto", CPU) == dtype
    assert choose_dtype("auto", torch.device("cuda")) == torch.bfloat16


@pytest.mark.parametrize("name", ["gpu", "mps", "meta", "cuda:99", ""])
def test_a_device_that_is_not_there_is_named(name):
    """The error says what may be asked for."""
    with pytest.raises(BadSetting, match=repr(name)):
        choose_device(name)


def test_the_module_prints_what_it_would_choose():
    """`python -m darkroom.engine.device` is read by `darkroom doctor`."""
    printed = subprocess.run(
        [sys.executable, "-m", "darkroom.engine.device"], check=True, capture_output=True, text=True
    ).stdout
    told = json.loads(printed)
    assert told.keys() == {"torch", "device", "name", "memory_bytes", "dtype"}
    assert told["dtype"] == describe()["dtype"]
    assert told["memory_bytes"] > 2**28
