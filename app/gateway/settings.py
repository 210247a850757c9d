"""What a gateway worker is told besides its snapshot: limits, deadlines, whom to trust, what to write down."""

from __future__ import annotations

import msgspec


class GatewaySettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Limits and deadlines of one worker, with defaults that suit a public edge. Durations in seconds.

    `head_*`: request line and header fields (431, 414, 408). `body_*`: request bodies (413, 408); one has
    `body_seconds`, and a second more per `body_rate` bytes that have come. `write_seconds`: a caller that does
    not take its answer. `connections`: callers at a time; more are answered 503. `shadow_in_flight`: copies
    under way per shadow arm. `trusted_proxies`: networks whose forwarding headers are believed; from everybody
    else they are replaced. `allow_networks`, `deny_networks`: where arms may be besides the rule that
    link-local and metadata addresses never are; `private_arms` off refuses private and loopback ones.
    """

    head_bytes: int = 32 * 1024
    head_fields: int = 100
    target_bytes: int = 8 * 1024
    head_seconds: float = 10.0
    body_bytes: int = 64 * 1024 * 1024
    body_seconds: float = 30.0
    body_rate: int = 1_024
    idle_seconds: float = 75.0
    write_seconds: float = 60.0
    connections: int = 10_000
    drain_seconds: float = 10.0
    shadow_in_flight: int = 64
    trusted_proxies: tuple[str, ...] = ()
    private_arms: bool = True
    allow_networks: tuple[str, ...] = ()
    deny_networks: tuple[str, ...] = ()
    access_log: str | None = None
    traces: str | None = None
