import socket

import pytest

from darkroom.cli import doctor as module
from darkroom.cli.doctor import Finding, examine
from darkroom.settings import Settings

DEVICE = {"device": "cpu", "name": "cpu, 2 threads", "memory_bytes": 8 * 2**30, "dtype": "float32", "torch": "2"}


@pytest.fixture(autouse=True)
def _known_device(monkeypatch):
    """Asking torch takes seconds and tells of this machine; the whole command has its test among the real processes."""
    monkeypatch.setattr(module, "_device", lambda: (Finding(name="torch", found="2"), DEVICE))


def check(name: str) -> Finding:
    return next(finding for finding in examine() if finding.name == name)


def test_a_failed_check_is_said_with_its_remedy(darkroom, monkeypatch):
    """The command exits 1 if any check fails, and says what to do about that one alone."""
    monkeypatch.setenv("DARKROOM_PORT", "0")
    ran = darkroom("doctor")
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
    assert "no GPU" in check("device").remedy


def test_a_checkpoint_that_lacks_files(monkeypatch, tmp_path):
    """What is missing from a checkpoint is named."""
    (tmp_path / "empty").mkdir()
    monkeypatch.setenv("DARKROOM_CHECKPOINT", str(tmp_path / "empty"))
    assert "model_index.json" in check("checkpoint").remedy


@pytest.mark.parametrize(
    ("dtype", "parameters", "fits"),
    [("auto", 10**9, True), ("auto", 3 * 10**9, False), ("bfloat16", 3 * 10**9, True), ("auto", None, True)],
)
def test_memory_is_weighed_in_the_dtype_it_takes(dtype, parameters, fits):
    """Whether the weights fit depends on what they are computed in: 3 G parameters are 6 GB or 12 GB."""
    finding = module._memory(Settings(dtype=dtype), DEVICE, parameters)
    assert (finding.remedy is None) == fits


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
