import re
import socket

import pytest

from darkroom.checkpoint import locate
from darkroom.cli import default, machine
from darkroom.cli.doctor import examine
from darkroom.cli.machine import Finding
from darkroom.memory import host
from darkroom.memory.host import host_memory_bytes
from darkroom.memory.needs import Part

DEVICE = {"device": "cpu", "name": "cpu, 2 threads", "memory_bytes": 8 * 2**30, "dtype": "float32", "torch": "2"}
H200 = {"name": "NVIDIA H200", "memory_bytes": 150_100_000_000, "multiplies_fp8": True}
ON_GPUS = {**DEVICE, "device": "cuda", "dtype": "bfloat16", "gpus": [H200, H200]}
PUBLISHED = "Qwen/Qwen-Image-Edit-2509"


@pytest.fixture(autouse=True)
def _known_device(monkeypatch):
    """Asking torch takes seconds and tells of this machine; the whole command has its test among the real processes."""
    monkeypatch.setattr(machine, "probe", lambda: (Finding(name="torch", found="2"), DEVICE))


@pytest.fixture
def on_gpus(monkeypatch) -> None:
    """A machine with two of them."""
    monkeypatch.setattr(machine, "probe", lambda: (Finding(name="torch", found="2"), ON_GPUS))


@pytest.fixture
def not_downloaded(monkeypatch) -> None:
    """A Hugging Face cache with nothing in it."""
    for module in (locate, default):
        monkeypatch.setattr(module, "find_cached", lambda name: None)


def check(name: str) -> Finding:
    return next(finding for finding in examine().findings if finding.name == name)


def test_a_failed_check_is_said_with_its_remedy(darkroom, monkeypatch):
    """The command exits 1 if any check fails, and says what to do about that one alone."""
    monkeypatch.setenv("DARKROOM_PORT", "0")
    ran = darkroom("doctor", "--checkpoint", "/nowhere")
    assert ran.code == 1
    lines = {line.split()[0]: line.split()[1] for line in ran.out.splitlines()[1:8]}
    assert lines.pop("checkpoint") == "FAIL"
    assert set(lines.values()) == {"ok"}
    assert [line for line in ran.out.splitlines() if "darkroom checkpoints make --size tiny DIR" in line]


def test_a_bad_setting_is_a_finding(darkroom, monkeypatch):
    """A bad setting is told like any other failure, not as a crash of the doctor."""
    monkeypatch.setenv("DARKROOM_PORT", "eighty")
    ran = darkroom("doctor")
    assert ran.code == 1
    assert "settings" in ran.out
    assert "'eighty'" in ran.out


def test_a_gpu_that_is_not_there(monkeypatch):
    """Asking for CUDA where torch sees none is found before the service is started."""
    monkeypatch.setenv("DARKROOM_DEVICE", "cuda")
    assert "the 0 GPUs that torch sees" in check("device").remedy


def test_where_torch_fails_nothing_is_planned(monkeypatch, tiny_checkpoint):
    """The other checks go on without what torch would have told."""
    broken = Finding(name="torch", found="ImportError", remedy="reinstall it")
    monkeypatch.setattr(machine, "probe", lambda: (broken, {}))
    monkeypatch.setenv("DARKROOM_PORT", "0")
    examination = examine(str(tiny_checkpoint))
    assert examination.plan is None
    assert [finding for finding in examination.findings if finding.remedy] == [broken]


@pytest.mark.parametrize(("device", "number"), [("auto", 0), ("cuda", 0), ("cuda:1", 1)])
def test_the_plan_is_for_the_gpu_that_is_chosen(monkeypatch, on_gpus, not_downloaded, device, number):
    """It is planned with that GPU's memory and, as its worker plans it, a GPU's share of the host's."""
    monkeypatch.setenv("DARKROOM_DEVICE", device)
    examination = examine(PUBLISHED)
    assert examination.plan.device.name == f"cuda:{number} (NVIDIA H200)"
    assert examination.plan.device.memory_bytes == H200["memory_bytes"]
    found = next(finding.found for finding in examination.findings if finding.name == "device")
    assert ("a worker on each of 2 GPUs" in found) == (device == "auto")
    assert examination.plan.device.host_memory_bytes == host_memory_bytes() // 2
    assert [finding.name for finding in examination.findings if finding.remedy] == ["checkpoint"]


def test_a_gpu_beyond_the_last(monkeypatch, on_gpus):
    """A number that no GPU has is found before the service is started."""
    monkeypatch.setenv("DARKROOM_DEVICE", "cuda:2")
    assert "the 2 GPUs that torch sees" in check("device").remedy


def test_a_worker_may_be_given_less_than_there_is(monkeypatch, on_gpus, not_downloaded):
    """DARKROOM_DEVICE_MEMORY_GB is planned with in place of the device's memory; with too little the check fails."""
    monkeypatch.setenv("DARKROOM_CHECKPOINT", PUBLISHED)
    monkeypatch.setenv("DARKROOM_DEVICE_MEMORY_GB", "16")
    assert "cuda:0 (NVIDIA H200) has 16.0 GB" in check("memory").remedy
    monkeypatch.setenv("DARKROOM_DEVICE_MEMORY_GB", "1000")
    assert check("memory").found.startswith("150.1 GB")


def test_a_checkpoint_that_lacks_files(monkeypatch, tmp_path):
    """What is missing from a checkpoint is named."""
    (tmp_path / "empty").mkdir()
    monkeypatch.setenv("DARKROOM_CHECKPOINT", str(tmp_path / "empty"))
    assert "model_index.json" in check("checkpoint").remedy


@pytest.mark.parametrize(
    ("dtype", "memory_gb", "fits"), [("auto", 64, False), ("auto", 128, True), ("bfloat16", 64, True)]
)
def test_memory_is_weighed_in_the_dtype_it_takes(monkeypatch, not_downloaded, dtype, memory_gb, fits):
    """Whether the checkpoint fits depends on what it is computed in; auto is what the device is fast at."""
    monkeypatch.setattr(host, "host_memory_bytes", lambda: memory_gb * 10**9)
    monkeypatch.setenv("DARKROOM_CHECKPOINT", PUBLISHED)
    monkeypatch.setenv("DARKROOM_DTYPE", dtype)
    assert (check("memory").remedy is None) == fits


def test_the_plan_is_shown(darkroom, monkeypatch, tiny_checkpoint):
    """Below the checks every part has a line with its place, its dtype and its size."""
    monkeypatch.setenv("DARKROOM_PORT", "0")
    ran = darkroom("doctor", "--checkpoint", tiny_checkpoint)
    assert ran.code == 0
    cells = [re.split(r"\s{2,}", line.strip()) for line in ran.out.splitlines()]
    placed = {row[0]: row[1:3] for row in cells if row[0] in list(Part)}
    assert placed.pop(Part.BESIDE)[0] == "none"
    assert placed == {part: ["device", "float32"] for part in Part if part != Part.BESIDE}


@pytest.mark.parametrize(("gpu_gb", "code", "said"), [(48, 0, "text encoder"), (24, 2, "DARKROOM_QUALITY_TIER=fast")])
def test_a_gpu_that_one_does_not_have(darkroom, not_downloaded, gpu_gb, code, said):
    """The published checkpoint is planned for before anything of it is here, on a GPU of any size."""
    ran = darkroom("doctor", "--checkpoint", PUBLISHED, "--gpu-gb", gpu_gb)
    assert ran.code == code
    assert said in (ran.err if code else ran.out)


def test_a_checkpoint_of_which_nothing_is_known(darkroom, not_downloaded):
    """Where neither the files nor the published configs are at hand, that is said."""
    ran = darkroom("doctor", "--checkpoint", "someone/else", "--gpu-gb", 48)
    assert ran.code == 2
    assert "someone/else" in ran.err


def test_too_little_disk(monkeypatch):
    """The disk is judged by what the service itself asks for, where its data folder will be."""
    monkeypatch.setenv("DARKROOM_MIN_FREE_BYTES", str(2**60))
    assert "DARKROOM_DATA" in check("disk").remedy


def test_a_data_folder_that_is_a_file(monkeypatch, tmp_path):
    """A file where the data folder should be is found."""
    (tmp_path / "file").touch()
    monkeypatch.setenv("DARKROOM_DATA", str(tmp_path / "file" / "data"))
    assert "file" in check("disk").remedy


def test_a_taken_port(monkeypatch):
    """A port in use is found, with how to choose another."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        monkeypatch.setenv("DARKROOM_PORT", str(taken.getsockname()[1]))
        assert "--port" in check("port").remedy


def test_a_host_that_is_not_known(monkeypatch):
    """It is the host that is wrong, and nothing is said of its port."""
    monkeypatch.setenv("DARKROOM_HOST", "256.0.0.1")
    assert "taken" not in check("port").found
    assert "can't listen on host 256.0.0.1" in check("port").remedy
