"""What a worker's C libraries are told, which read it as they are loaded, before any code of ours runs."""

import os
from collections.abc import Mapping
from types import MappingProxyType

ENVIRONMENT: Mapping[str, str] = MappingProxyType(
    {
        # GNU's OpenMP has threads that wait for one another spin, else a hundred times as long, which on a machine with
        # anything else to do makes an edit take many times as long; never spinning costs an idle one a tenth.
        "GOMP_SPINCOUNT": "3000",
        # glibc else gives what a layer has freed back to the system, whose pages the next layer then faults in again,
        # 4 KiB at a time. Other C libraries do not read this.
        "GLIBC_TUNABLES": "glibc.malloc.hugetlb=1:glibc.malloc.trim_threshold=1073741824"
        ":glibc.malloc.mmap_threshold=33554432",
    }
)


def environment() -> dict[str, str]:
    """The process's own, with `ENVIRONMENT` where an operator has not chosen otherwise. How threads wait is chosen by
    `OMP_WAIT_POLICY` too, over which a count of spins would win."""
    chosen = {"GOMP_SPINCOUNT"} if "OMP_WAIT_POLICY" in os.environ else set()
    return {name: value for name, value in ENVIRONMENT.items() if name not in chosen} | os.environ
