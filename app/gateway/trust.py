"""Whom is believed about where a request has been? What arms are told of it, and who the caller was."""

from __future__ import annotations

import re
import secrets
from collections.abc import Iterable, Iterator, Mapping
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network

from app.gateway.settings import GatewaySettings
from app.gateway.traceparent import is_traceparent, tracestate_of

_Address = IPv4Address | IPv6Address

_KEPT = (
    (b"x-forwarded-port", b"X-Forwarded-Port"),
    (b"x-forwarded-prefix", b"X-Forwarded-Prefix"),
    (b"x-real-ip", b"X-Real-IP"),
)
_BAGGAGE_BYTES = 8_192
_TOKEN = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_ELEMENT = re.compile(rb'(?:[^,"]|"(?:[^"\\]|\\.)*(?:"|\\?\Z))+')
_PAIR = re.compile(rb"([!#$%&'*+.^_`|~0-9A-Za-z-]+)=(\"(?:[^\"\\]|\\.)*\"|[^;,\"]*)")
_PORT = re.compile(r"(?:(\d+\.\d+\.\d+\.\d+)|\[([^\]]*)\])(?::\w+)?")


class Trust:
    """Which peers are proxies of ours, and what arms are told of a request's way.

    What a proxy of ours says is kept and added to. What anybody else says is replaced, but for `Via`, which
    holds no claim that one could profit from and without which loops were not seen. `pseudonym` is this
    process in `Via`.

    Trace headers pass as they are while we take no part in traces. Where we do, `tracing` writes them, and
    the baggage of strangers ends here with their traces.
    """

    def __init__(self, settings: GatewaySettings, pseudonym: str | None = None) -> None:
        self.pseudonym = (pseudonym or f"kingmaker-{secrets.token_hex(6)}").encode()
        self._networks = tuple(map(ip_network, settings.trusted_proxies))
        self._takes_part = settings.traces is not None
        self._via = b"Via: 1.1 %b\r\n" % self.pseudonym

    def is_trusted(self, peer: str) -> bool:
        """Whether a peer's address is that of a proxy of ours. Asked once per connection."""
        if not self._networks:
            return False
        address = _address(peer)
        return address is not None and self._holds(address)

    def is_loop(self, received: Mapping[bytes, bytes]) -> bool:
        """Whether a request has been here before (to be answered 508)."""
        via = received.get(b"via")
        if via is None or self.pseudonym not in via:
            return False
        return any(entry.split()[1:2] == [self.pseudonym] for entry in via.split(b","))

    def forwarding_lines(
        self,
        received: Mapping[bytes, bytes],
        host: bytes,
        peer: bytes,
        trusted: bool,
        http10: bool = False,
    ) -> bytes:
        """The header lines that tell an arm where a request came from.

        `received` are the fields of `requests.FORWARDING` that came with it, by lower-case name, those that
        came more than once joined by commas. `peer` is the address of who sent it, `host` the request's own.
        """
        if received or http10 or not host:
            return self._worked_out(received, host, peer, trusted, http10)
        return (
            b"X-Forwarded-For: %b\r\nX-Forwarded-Host: %b\r\nX-Forwarded-Proto: http\r\n%b"
            % (peer, host, self._via)
        )  # fmt: skip

    def client_address(self, received: Mapping[bytes, bytes], peer: str, trusted: bool) -> str:
        """Who called: the last address on the request's way that is no proxy of ours."""
        if not trusted:
            return peer
        caller = peer
        for text in _way_back(received):
            address = _address(text)
            if address is None:
                break
            caller = str(address)
            if not self._holds(address):
                break
        return caller

    def _worked_out(
        self, received: Mapping[bytes, bytes], host: bytes, peer: bytes, trusted: bool, http10: bool
    ) -> bytes:
        believed = received if trusted else {}
        lines = [b"X-Forwarded-For: %b\r\n" % _joined(believed.get(b"x-forwarded-for"), peer)]
        if named := believed.get(b"x-forwarded-host", host):
            lines.append(b"X-Forwarded-Host: %b\r\n" % named)
        lines.append(b"X-Forwarded-Proto: %b\r\n" % believed.get(b"x-forwarded-proto", b"http"))
        lines += [b"%b: %b\r\n" % (name, believed[lower]) for lower, name in _KEPT if lower in believed]
        if (way := believed.get(b"forwarded")) is not None:
            lines.append(b"Forwarded: %b\r\n" % _joined(way, _element(peer, host)))
        via = b"%b %b" % (b"1.0" if http10 else b"1.1", self.pseudonym)
        lines.append(b"Via: %b\r\n" % _joined(received.get(b"via"), via))
        lines += self._trace_lines(received, trusted)
        return b"".join(lines)

    def _trace_lines(self, received: Mapping[bytes, bytes], trusted: bool) -> Iterator[bytes]:
        if not self._takes_part and is_traceparent(received.get(b"traceparent", b"")):
            yield b"traceparent: %b\r\n" % received[b"traceparent"]
            if (state := tracestate_of(received)) is not None:
                yield b"tracestate: %b\r\n" % state
        baggage = received.get(b"baggage", b"")
        if 0 < len(baggage) <= _BAGGAGE_BYTES and (trusted or not self._takes_part):
            yield b"baggage: %b\r\n" % baggage

    def _holds(self, address: _Address) -> bool:
        return any(address in network for network in self._networks)


def _address(text: str) -> _Address | None:
    """An address, if the text is one; of IPv4 in either form."""
    try:
        address = ip_address(text)
    except ValueError:
        return None
    return (address.ipv4_mapped or address) if isinstance(address, IPv6Address) else address


def _joined(known: bytes | None, last: bytes) -> bytes:
    return b"%b, %b" % (known, last) if known else last


def _element(peer: bytes, host: bytes) -> bytes:
    """What we add to Forwarded (RFC 7239): whom the request came from, and which host they asked for."""
    node = b'"[%b]"' % peer if b":" in peer else peer
    if not host:
        return b"for=%b;proto=http" % node
    quoted = host if _TOKEN.fullmatch(host) is not None else b'"%b"' % host
    return b"for=%b;host=%b;proto=http" % (node, quoted)


def _way_back(received: Mapping[bytes, bytes]) -> Iterable[str]:
    """The addresses that proxies noted, last first. X-Forwarded-For counts where there is also Forwarded."""
    chain = received.get(b"x-forwarded-for")
    if chain is not None:
        nodes = chain.split(b",")
    else:
        nodes = [_node(element) for element in _ELEMENT.findall(received.get(b"forwarded", b""))]
    for node in reversed(nodes):
        text = node.strip().decode("latin-1")
        parts = _PORT.fullmatch(text)
        yield text if parts is None else parts[1] or parts[2]


def _node(element: bytes) -> bytes:
    """Whom an element of Forwarded names; nobody, if it does not."""
    for pair in _PAIR.finditer(element):
        if pair[1].lower() == b"for":
            return pair[2].strip(b'"')
    return b""
