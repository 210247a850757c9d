"""Do we listen at an address ourselves? No arm may be where our gateway or our control plane is."""

from __future__ import annotations

import socket
from ipaddress import ip_address

from routing.addresses import Address, destination

Listeners = frozenset[tuple[str, int]]
"""The addresses and ports that we ourselves listen on."""

NOWHERE: Listeners = frozenset()

_DISCARD_PORT = 9
_PORTS = 65_536


def listeners_of(*sockets: socket.socket) -> Listeners:
    """Where these listen."""
    return frozenset(listener.getsockname()[:2] for listener in sockets)


def listener_text(address: str, port: int) -> str:
    """A listener as people write it: an IPv6 address in brackets."""
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"


def read_listener(text: str) -> tuple[str, int]:
    """The listener that `listener_text` has written.

    Raises:
        ValueError: it is none.
    """
    host, _, port = text.rpartition(":")
    address = host[1:-1] if host.startswith("[") and host.endswith("]") else host
    is_listener = (":" in address) is (address != host) and port.isascii() and port.isdigit()
    if not is_listener or not 0 < int(port) < _PORTS:
        raise ValueError(f"must be an address and a port above 0, got {text!r}")
    return str(ip_address(address)), int(port)


def own_refusal(own: Listeners, address: str, port: int) -> str | None:
    """Why no connection may be made to an address: we listen there. None where we do not."""
    if not any(own_port == port for _, own_port in own):
        return None
    meant = destination(ip_address(address))
    if any(own_port == port and _is_heard(listening, meant) for listening, own_port in own):
        return f"must not be where Kingmaker itself listens, got {address} port {port}"
    return None


def is_of_this_machine(address: Address) -> bool:
    """Whether an address is one of our own: the system speaks to it from itself. Sends nothing."""
    if address.is_loopback:
        return True
    family = socket.AF_INET6 if address.version == 6 else socket.AF_INET
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.connect((str(address), _DISCARD_PORT))
            return ip_address(probe.getsockname()[0]) == address
    except OSError:
        return False


def _is_heard(listening: str, address: Address) -> bool:
    """Whether who listens there is who is called at the address."""
    own = destination(ip_address(listening))
    is_covered = own.is_unspecified and own.version >= address.version  # :: takes IPv4 too
    return own == address or (is_covered and is_of_this_machine(address))
