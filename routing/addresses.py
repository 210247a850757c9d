"""Where may an arm be? Never at a link-local address, a cloud's metadata service, or where no host can be.

An address counts as what it comes to: an IPv4 address that is carried inside an IPv6 one is judged as well.
The metadata addresses are those that the clouds document, and that cloud-init asks.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from urllib.parse import unquote

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network

SOCKET_BYTES = 107
"""The longest path of a Unix socket: what Linux has room for."""


def _networks(*networks: str) -> tuple[Network, ...]:
    return tuple(ip_network(network) for network in networks)


_NEVER = (
    (
        "a link-local or metadata address",
        _networks(
            "169.254.0.0/16",  # AWS and its containers, Google, Azure, Oracle, Tencent, Scaleway, and others
            "fe80::/10",
            "100.100.100.200/32",  # Alibaba
            "168.63.129.16/32",  # Azure's wire server
            "192.0.0.192/32",  # Oracle, classic
            "fd00:ec2::/32",  # AWS: metadata, pod identity, name and time servers
            "fd00:42::42/128",  # Scaleway
            "fd00:100::100:200/128",  # Alibaba
            "fd00:a9fe:a9fe::1/128",  # Akamai
            "fd00:c1::a9fe:a9fe/128",  # Oracle
            "fd20:ce::254/128",  # Google
        ),
    ),
    ("an unspecified address", _networks("0.0.0.0/8", "::/128")),
    ("a multicast address", _networks("224.0.0.0/4", "ff00::/8")),
    ("the broadcast address", _networks("255.255.255.255/32")),
)
_PRIVATE = _networks(
    "10.0.0.0/8",
    "100.64.0.0/10",
    "127.0.0.0/8",
    "172.16.0.0/12",
    "192.0.0.0/24",
    "192.168.0.0/16",
    "198.18.0.0/15",
    "240.0.0.0/4",
    "::/96",  # loopback, and IPv4 addresses in their oldest disguise
    "64:ff9b:1::/48",
    "100::/64",
    "fc00::/7",
    "fec0::/10",
)
_METADATA_HOSTS = {
    "instance-data",
    "instance-data.ec2.internal",
    "metadata",
    "metadata.azure.internal",
    "metadata.goog",
    "metadata.google.internal",
    "metadata.packet.net",
    "metadata.platformequinix.com",
    "metadata.tencentyun.com",
    "rancher-metadata",
}
_ENGINE_SOCKETS = ("docker.sock", "containerd.sock", "crio.sock", "podman.sock")
_LABEL = r"[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?"
_HOST = re.compile(rf"(?=.{{1,253}}\.?$){_LABEL}(\.{_LABEL})*\.?")
_ENDS_IN_NUMBER = re.compile(r"(.*\.)?(0x[0-9a-f]*|[0-9]+)\.*")
_DOTTED_QUAD = re.compile(r"((25[0-5]|2[0-4][0-9]|1[0-9]{2}|[1-9]?[0-9])(\.(?!$)|$)){4}")
_ENCODED_PATH = re.compile(r"([A-Za-z0-9._~-]|%[0-9A-Fa-f]{2})+")
_FILE = re.compile(r"/[^\x00-\x1f\x7f]+")
_LOW = 0xFFFF_FFFF
_WHOLE_PREFIXES = (0x0, 0xFFFF, 0xFFFF_0000, 0x0064_FF9B << 64)
"""The first 96 bits of: compatible, mapped, translated (SIIT) and NAT64 addresses."""
_LOCAL_NAT64 = 0x0064_FF9B_0001
_LOCAL_NAT64_BYTES = ((6, 7, 9, 10), (7, 9, 10, 11), (9, 10, 11, 12), (12, 13, 14, 15))
"""Where RFC 6052 puts IPv4 addresses behind prefixes of 48, 56, 64 and 96 bits; which it is, nobody says."""
_ISATAP = (0x0000_5EFE, 0x0200_5EFE)


@dataclass(frozen=True, slots=True)
class AddressRules:
    """Where arms may be, besides where none ever may: `private`, networks that are refused, or else required.

    `deny` wins over `allow`; where `allow` is not empty, nothing else is allowed.
    """

    private: bool = True
    allow: tuple[Network, ...] = ()
    deny: tuple[Network, ...] = ()

    def refusal(self, address: str) -> str | None:
        """Why no connection may be made to this IP address; None when one may."""
        try:
            given = ip_address(address)
        except ValueError:
            return f"must be an IP address, got {address!r}"
        if "%" in address:
            return f"must be an address without a zone, got {address!r}"
        meant = destination(given)
        carried = (meant, *_carried(meant))
        for what, networks in _NEVER:
            if _are_in(carried, networks):
                return f"must not be {what}, got {address}"
        return self._refusal_by_settings(address, carried)

    def socket_refusal(self, path: str) -> str | None:
        """Why no connection may be made to this Unix socket, which is private, and in no network."""
        if path.endswith(_ENGINE_SOCKETS):
            return f"must not be a container engine's own socket, got {path!r}"
        if not self.private:
            return f"must not be a Unix socket while private_arms is off, got {path!r}"
        if self.allow:
            return f"must be in one of allow_networks, got the Unix socket {path!r}"
        return None

    def _refusal_by_settings(self, address: str, carried: Sequence[Address]) -> str | None:
        if _are_in(carried, self.deny):
            return f"must not be in deny_networks, got {address}"
        if self.allow and not _are_in(carried[:1], self.allow):
            return f"must be in one of allow_networks, got {address}"
        if not self.private and _are_in(carried, _PRIVATE):
            return f"must not be a private or loopback address while private_arms is off, got {address}"
        return None


DEFAULT = AddressRules()
"""What holds without settings: private and loopback addresses are allowed."""


def address_rules(private: bool, allow: Iterable[str], deny: Iterable[str]) -> AddressRules:
    """The rules that settings describe.

    Raises:
        ValueError: one of them is not a network.
    """
    return AddressRules(private, _networks(*allow), _networks(*deny))


def host_refusal(host: str) -> str | None:
    """Why the host of a URL (in lower case, without brackets) is none that an arm may have; None when it may.

    An address is judged by what holds everywhere. What a name comes to is judged when a connection is made.
    """
    if ":" in host:
        return DEFAULT.refusal(host)
    if _ENDS_IN_NUMBER.fullmatch(host) and not _DOTTED_QUAD.fullmatch(host):
        return f"must write an IPv4 address as four decimal numbers, got {host!r}"
    if _DOTTED_QUAD.fullmatch(host):
        return DEFAULT.refusal(host)
    if not _HOST.fullmatch(host):
        return f"must be a host name or an IP address, in ASCII and not encoded, got {host!r}"
    if host.rstrip(".") in _METADATA_HOSTS:
        return f"must not be a link-local or metadata address, got {host!r}"
    return None


def socket_path(netloc: str) -> str | None:
    """The path of a Unix socket as a URL names it in the place of a host; None when it names none."""
    if not _ENCODED_PATH.fullmatch(netloc):
        return None
    try:
        path = unquote(netloc, errors="strict")
    except UnicodeError:
        return None
    return path if _FILE.fullmatch(path) and len(path.encode()) <= SOCKET_BYTES else None


def destination(address: Address) -> Address:
    """The address itself, or the IPv4 address that the system takes it for."""
    return (isinstance(address, IPv6Address) and address.ipv4_mapped) or address


def _are_in(addresses: Iterable[Address], networks: Sequence[Network]) -> bool:
    return any(address in network for address in addresses for network in networks)


def _carried(address: Address) -> Iterator[IPv4Address]:
    """The IPv4 addresses that packets to an IPv6 address may be handed on to."""
    if isinstance(address, IPv4Address):
        return
    bits = int(address)
    low, prefix = bits & _LOW, bits >> 32
    is_carrier = prefix in _WHOLE_PREFIXES or prefix & _LOW in _ISATAP
    if is_carrier and bits > 1:  # :: and ::1 carry nothing
        yield IPv4Address(low)
    if bits >> 112 == 0x2002:  # 6to4
        yield IPv4Address(bits >> 80 & _LOW)
    if bits >> 96 == 0x2001_0000:  # Teredo: its server, and its client with every bit turned
        yield IPv4Address(bits >> 64 & _LOW)
        yield IPv4Address(low ^ _LOW)
    if bits >> 80 == _LOCAL_NAT64:
        packed = address.packed
        readings = (IPv4Address(bytes(packed[place] for place in places)) for places in _LOCAL_NAT64_BYTES)
        yield from (reading for reading in readings if int(reading) >> 24)
