import os

import pytest

from darkroom.memory.host import host_memory_bytes

MACHINE_BYTES = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


@pytest.mark.parametrize(
    ("limit", "expected"),
    [("4096\n", 4096), ("max\n", MACHINE_BYTES), (f"{2**62}\n", MACHINE_BYTES), (None, MACHINE_BYTES)],
)
def test_a_container_has_no_more_than_its_limit(tmp_path, limit, expected):
    """The smaller of the machine's memory and the container's limit counts; without a limit, the machine's."""
    path = tmp_path / "memory.max"
    if limit is not None:
        path.write_text(limit)
    assert host_memory_bytes(path) == expected
