import json
import subprocess
import sys
from types import SimpleNamespace

import pytest
import torch

from darkroom.engine.device import choose_device, choose_dtype, describe, measure_device, set_threads
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
    assert told.keys() == {"torch", "device", "name", "dtype", "gpus"}
    assert told["dtype"] == describe()["dtype"]
    assert len(told["gpus"]) == torch.cuda.device_count()


def test_every_gpu_is_described(monkeypatch):
    """Each by its own properties: name, memory, and whether its generation multiplies float8."""
    found = [
        SimpleNamespace(name="RTX 3090", total_memory=25 * 10**9),
        SimpleNamespace(name="RTX 4090", total_memory=25 * 10**9),
        SimpleNamespace(name="H200", total_memory=150 * 10**9),
    ]
    capabilities = [(8, 6), (8, 9), (9, 0)]
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: len(found))
    monkeypatch.setattr(torch.cuda, "get_device_properties", found.__getitem__)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capabilities[device.index])
    assert [gpu["multiplies_fp8"] for gpu in describe()["gpus"]] == [False, True, True]
    h200 = measure_device(torch.device("cuda:2"), 80)
    assert (h200.name, h200.memory_bytes, h200.multiplies_fp8) == ("cuda:2 (H200)", 80 * 10**9, True)


def test_a_cpu_is_measured_by_what_is_there():
    """The machine's memory, or less where the operator says so."""
    assert measure_device(CPU, 0.5).memory_bytes == 500_000_000
    assert measure_device(CPU, None).memory_bytes > 2**28


@pytest.mark.parametrize(
    ("limit", "threads"), [("150000 100000\n", 1), ("300000 100000\n", 3), ("50000 100000\n", 1), ("max 100000\n", 4)]
)
def test_threads_are_as_many_as_a_container_may_use(monkeypatch, tmp_path, limit, threads):
    """Whole cores of its quota; at least one; never more than torch would take."""
    (tmp_path / "cpu.max").write_text(limit)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr("os.sched_getaffinity", lambda _: range(4))
    monkeypatch.setattr(torch, "get_num_threads", lambda: 8)
    chosen = []
    monkeypatch.setattr(torch, "set_num_threads", chosen.append)
    set_threads(tmp_path / "cpu.max")
    assert chosen == [threads]


def test_the_operators_number_of_threads_stands(monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    monkeypatch.setattr(torch, "set_num_threads", lambda _: pytest.fail("changed"))
    set_threads()
