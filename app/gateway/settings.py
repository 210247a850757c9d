"""What a gateway worker is told besides its snapshot: limits, deadlines, whom to trust, what to note."""

from __future__ import annotations

from collections.abc import Iterator
from ipaddress import ip_network
from types import MappingProxyType
from urllib.parse import urlsplit

import msgspec

from app.gateway.cors import ANY, is_origin

_MIB = 1024 * 1024
_DAY_SECONDS = 86_400

BOUNDS = MappingProxyType(
    {
        "head_bytes": (64, 16 * _MIB),
        "head_fields": (1, 10_000),
        "target_bytes": (16, 16 * _MIB),
        "head_seconds": (0.001, _DAY_SECONDS),
        "body_bytes": (0, 1024 * 1024 * _MIB),
        "body_seconds": (0.001, _DAY_SECONDS),
        "body_rate": (1, 1024 * _MIB),
        "idle_seconds": (0.001, _DAY_SECONDS),
        "write_seconds": (0.001, _DAY_SECONDS),
        "half_closed_seconds": (0, _DAY_SECONDS),
        "tunnel_idle_seconds": (0.001, _DAY_SECONDS),
        "held_bytes": (1024 * 1024, 1024 * 1024 * _MIB),
        "connections": (1, 1_000_000),
        "lame_duck_seconds": (0, _DAY_SECONDS),
        "drain_seconds": (0, _DAY_SECONDS),
        "first_arm_seconds": (0.001, 10),
        "shadow_in_flight": (0, 100_000),
        "trace_ratio": (0, 1),
    }
)
"""The least and the most that each number may be."""

NETWORKS = ("trusted_proxies", "allow_networks", "deny_networks")


class BadLimit(ValueError):
    """A setting of the gateway that cannot be: names field, bound and value."""

    def __init__(self, field: str, message: str) -> None:
        super().__init__(f"{field} {message}")
        self.field = field
        self.message = message


class GatewaySettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Limits and deadlines of one worker, with defaults that suit a public edge. Durations in seconds.

    `head_*`: request line and header fields (431, 414, 408). `body_*`: request bodies (413, 408); one has
    `body_seconds`, and a second more per `body_rate` bytes that have come. `write_seconds`: a caller that
    does not take its answer. `half_closed_seconds`: how long a caller that has said its last may wait for its
    answer to begin: most of them have left. `tunnel_idle_seconds`: a WebSocket on which nothing is said.
    `held_bytes`: bodies in memory at a time; who would add much to more is answered 503. `connections`:
    callers at a time; more are answered 503. `lame_duck_seconds`: how long a gateway that is to stop still
    takes callers in, not ready; `drain_seconds`: how long exchanges then have to end.
    `first_arm_seconds`: how long the store of first arms has to answer. `shadow_in_flight`: copies under way
    per shadow arm.

    `trusted_proxies`: networks whose forwarding headers are believed; from everybody else they are replaced.
    Besides the rule that arms never are at link-local and metadata addresses: `allow_networks`, if any, are
    the only ones where they may be, `deny_networks` those where they may not, and `private_arms` off refuses
    private and loopback ones. `cors_origins`: whose pages may ask for assignments, and report; `*` is every
    origin. `access_log`: a file, or `-` for standard output. `traces`: where OTLP traces go; `trace_ratio`:
    how many of the requests are traced whose caller does not say.

    Raises:
        BadLimit: a value is out of its bounds.
    """

    head_bytes: int = 32 * 1024
    head_fields: int = 100
    target_bytes: int = 8 * 1024
    head_seconds: float = 10.0
    body_bytes: int = 64 * _MIB
    body_seconds: float = 30.0
    body_rate: int = 1_024
    idle_seconds: float = 75.0
    write_seconds: float = 60.0
    half_closed_seconds: float = 2.0
    tunnel_idle_seconds: float = 300.0
    held_bytes: int = 64 * _MIB
    connections: int = 10_000
    lame_duck_seconds: float = 0.0
    drain_seconds: float = 10.0
    first_arm_seconds: float = 0.025
    shadow_in_flight: int = 64
    trusted_proxies: tuple[str, ...] = ()
    private_arms: bool = True
    allow_networks: tuple[str, ...] = ()
    deny_networks: tuple[str, ...] = ()
    cors_origins: tuple[str, ...] = ()
    access_log: str | None = None
    traces: str | None = None
    trace_ratio: float = 0.01

    def __post_init__(self) -> None:
        for problem in _problems(self):
            raise problem


def _problems(settings: GatewaySettings) -> Iterator[BadLimit]:
    for name, (low, high) in BOUNDS.items():
        if not low <= (value := getattr(settings, name)) <= high:
            yield BadLimit(name, f"must be in [{low}, {high}], got {value}")
    for name in NETWORKS:
        for network in getattr(settings, name):
            yield from _network_problems(name, network)
    for origin in settings.cors_origins:
        if not is_origin(origin):
            bound = f"must hold origins as browsers send them, such as https://shop.example.com, or {ANY}"
            yield BadLimit("cors_origins", f"{bound}, got {origin!r}")
    if (path := settings.access_log) is not None and (not path or "\0" in path):
        yield BadLimit("access_log", f"must be the path of a file, or - for standard output, got {path!r}")
    if settings.traces is not None:
        yield from _url_problems("traces", settings.traces)


def _network_problems(name: str, network: str) -> Iterator[BadLimit]:
    try:
        ip_network(network)
    except ValueError:
        yield BadLimit(name, f"must hold networks such as 10.0.0.0/8, got {network!r}")


def _url_problems(name: str, url: str) -> Iterator[BadLimit]:
    try:
        parts = urlsplit(url)
        sound = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        sound = False
    if not sound:
        yield BadLimit(name, f"must be a URL with scheme http or https, got {url!r}")
