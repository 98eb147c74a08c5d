import socket
from ipaddress import IPv4Address, IPv6Address, ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from darkroom.fetch.addresses import is_public

# fmt: off
PRIVATE = """
    0.0.0.0 0.1.2.3 10.0.0.1 100.64.0.1 100.127.255.255 100.100.100.200 127.0.0.1 127.255.255.255 168.63.129.16
    169.254.169.254 172.16.0.1 172.31.255.255 192.0.0.192 192.0.2.1 192.88.99.1 192.168.1.1 198.18.0.1 198.19.255.255
    198.51.100.7 203.0.113.9 224.0.0.1 239.255.255.255 240.0.0.1 255.255.255.255
    :: ::1 ::7f00:1 ::8.8.8.8 ::ffff:127.0.0.1 ::ffff:8.8.8.8 64:ff9b::7f00:1 64:ff9b::808:808 64:ff9b:1::a00:1
    100::1 2001::1 2001:0:4136:e378:8000:63bf:3fff:fdd2 2001:2::1 2001:10::1 2001:20::1 2001:db8::1 2002:7f00:1::
    2002:808:808::1 2606:4700::5efe:7f00:1 2606:4700::200:5efe:a00:1 3fff::1 5f00::1 fc00::1 fd00:ec2::254
    fe80::1 fe80::1%eth0 fec0::1 ff02::1 4000::1
""".split()  # noqa: SIM905  a list this long is best read so
PUBLIC = """
    1.1.1.1 8.8.8.8 9.255.255.255 11.0.0.0 93.184.215.14 100.63.255.255 100.128.0.0 126.255.255.255 128.0.0.0
    172.15.255.255 172.32.0.0 192.167.255.255 192.169.0.0 198.17.255.255 198.20.0.0 223.255.255.255
    2606:4700:4700::1111 2001:4860:4860::8888 2a00:1450:4001:80e::200e 2003::1
""".split()  # noqa: SIM905
# fmt: on


@pytest.mark.parametrize("address", PRIVATE)
def test_not_public(address: str) -> None:
    """Every special-purpose address, and every form that embeds an IPv4 address, counts as not public."""
    assert not is_public(ip_address(address))


@pytest.mark.parametrize("address", PUBLIC)
def test_public(address: str) -> None:
    """Ordinary addresses, right up to the edges of the special ranges, are public."""
    assert is_public(ip_address(address))


@given(st.ip_addresses(v=4))
def test_embeddings_are_never_public(inner: IPv4Address) -> None:
    """Whatever IPv4 address is inside: mapped, compatible, NAT64, 6to4, Teredo and ISATAP forms are refused."""
    number = int(inner)
    for outer in (
        number,
        0xFFFF << 32 | number,
        int(IPv6Address("64:ff9b::")) | number,
        int(IPv6Address("64:ff9b:1::")) | number,
        0x2002 << 112 | number << 80 | 1,
        0x20010000 << 96 | (number ^ 0xFFFFFFFF),
        int(IPv6Address("2606:4700::5efe:0:0")) | number,
    ):
        assert not is_public(IPv6Address(outer))


@given(st.ip_addresses(v=4) | st.ip_addresses(v=6))
def test_public_is_within_the_library_s_global(address: IPv4Address | IPv6Address) -> None:
    """Nothing is public that the standard library calls private, reserved, loopback, link-local or multicast."""
    if is_public(address):
        assert address.is_global
        kinds = ("private", "reserved", "loopback", "link_local", "multicast", "unspecified")
        assert not [kind for kind in kinds if getattr(address, f"is_{kind}")]


def test_the_platform_still_reads_odd_spellings() -> None:
    """The guard relies on inet_aton to read what resolvers read."""
    assert socket.inet_aton("0x7f.1") == b"\x7f\x00\x00\x01"
