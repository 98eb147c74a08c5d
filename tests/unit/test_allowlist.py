from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from darkroom.allowlist import AllowList


@given(st.ip_addresses(v=4) | st.ip_addresses(v=6), st.integers(1, 65535), st.integers(0, 8))
def test_entries_let_their_own_through(address: IPv4Address | IPv6Address, port: int, wider: int) -> None:
    """host:port lets through that address on that port alone; CIDR the whole network on every port."""
    text = f"[{address}]" if address.version == 6 else str(address)
    host = AllowList.read([f"{text}:{port}"])
    assert host.has_address(address, port)
    assert host.has_host(str(address), port)
    assert not host.has_address(address, port ^ 1)
    network = ip_network((address, address.max_prefixlen - wider), strict=False)
    assert AllowList.read([str(network)]).has_address(address, port)
    assert AllowList.read([str(network)]).has_address(network[0], port)
    assert not AllowList.read([]).has_address(address, port)


def test_names_are_matched_without_case_or_last_dot() -> None:
    """A name's entry holds for all its spellings in DNS, on its port, and for no other name."""
    allow = AllowList.read(["Files.Example:9000"])
    assert allow.has_host("files.example", 9000)
    assert allow.has_host("FILES.example.", 9000)
    assert not allow.has_host("files.example", 80)
    assert not allow.has_host("x.files.example", 9000)


@pytest.mark.parametrize(
    "entry",
    ["", "files.example", "files.example:0", "files.example:65536", "a b:80", "10.0.0.1/8", "10.0.0.0/33", ":80"],
)
def test_bad_entries_are_named(entry: str) -> None:
    """Anything but host:port and CIDR is refused with its own text."""
    with pytest.raises(ValueError, match=r"neither host:port nor CIDR|names no port") as caught:
        AllowList.read([entry])
    assert repr(entry) in str(caught.value)


def test_bare_ipv6_is_a_network_not_a_port() -> None:
    """fd00::80 is one address on every port, not host fd00: on port 80."""
    allow = AllowList.read(["fd00::80"])
    assert allow.has_address(ip_address("fd00::80"), 443)
    assert not allow.hosts
