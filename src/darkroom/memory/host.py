"""The memory of the machine, or of the container we are in."""

import os
from pathlib import Path

CGROUP_LIMIT = Path("/sys/fs/cgroup/memory.max")


def host_memory_bytes(limit: Path = CGROUP_LIMIT) -> int | None:
    """What the processes here may take together; None where the system does not tell."""
    try:
        machine_bytes = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, OSError, ValueError):
        return None
    try:
        return min(machine_bytes, int(limit.read_text()))
    except (OSError, ValueError):  # no container, or one without a limit, whose file says "max"
        return machine_bytes
