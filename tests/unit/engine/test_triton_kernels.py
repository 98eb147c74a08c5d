"""The Triton kernels, held against torch as it is. Their speed is for a GPU to show."""

import json
import os
import subprocess
import sys
from importlib.util import find_spec

import pytest

import triton_cases

pytestmark = pytest.mark.skipif(find_spec("triton") is None, reason="Triton is not installed")


def outcomes(how: str) -> dict[str, str]:
    run = subprocess.run(
        [sys.executable, triton_cases.__file__, how],
        env={**os.environ, "TRITON_INTERPRET": "1" if how == "interpret" else "0"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    return json.loads(run.stdout)


@pytest.fixture(scope="module")
def interpreted() -> dict[str, str]:
    return outcomes("interpret")


@pytest.mark.parametrize("name", [name for name, _ in triton_cases.cases()])
def test_kernels_compute_what_the_plain_ones_do(interpreted, name):
    """From views into fused projections, with one row of modulation or two, at sizes that fill no block, to a rounding
    of the dtype."""
    assert interpreted[name] == "ok"


def test_kernels_are_made_for_a_gpu_by_triton_s_compiler(tmp_path, monkeypatch):
    """At the published sizes, for Hopper, without one: what only the interpreter lets pass is found here."""
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    assert outcomes("compile") == {"join": "ok", "modulate": "ok", "float8": "ok"}
