"""What the guarded fetcher lets through although it is not public, as the setting `fetch_allow` has it."""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import Self


@dataclass(frozen=True, kw_only=True, slots=True)
class AllowList:
    """Networks whole, and hosts (a name, or an address) by port."""

    networks: tuple[IPv4Network | IPv6Network, ...]
    hosts: frozenset[tuple[str, int]]

    @classmethod
    def read(cls, entries: Iterable[str]) -> Self:
        """Entries are `host:port`, `[IPv6]:port` or CIDR. Raises ValueError that names the first other one."""
        networks: list[IPv4Network | IPv6Network] = []
        hosts: set[tuple[str, int]] = set()
        for entry in entries:
            if match := re.fullmatch(r"(?:\[([0-9A-Fa-f:.]+)\]|([A-Za-z0-9._-]+)):([0-9]{1,5})", entry):
                address, name, port = match.groups()
                if not 0 < int(port) < 2**16:
                    raise ValueError(f"{entry!r} names no port from 1 to 65535")
                hosts.add((_canonical(address or name), int(port)))
                continue
            try:
                networks.append(ip_network(entry))
            except ValueError as error:
                raise ValueError(f"{entry!r} is neither host:port nor CIDR ({error})") from None
        return cls(networks=tuple(networks), hosts=frozenset(hosts))

    def has_host(self, host: str, port: int) -> bool:
        """Whether whatever this host resolves to is let through on this port."""
        return (_canonical(host), port) in self.hosts

    def has_address(self, address: IPv4Address | IPv6Address, port: int) -> bool:
        return (str(address), port) in self.hosts or any(address in network for network in self.networks)


def _canonical(host: str) -> str:
    try:
        return str(ip_address(host))
    except ValueError:
        return host.lower().removesuffix(".")
