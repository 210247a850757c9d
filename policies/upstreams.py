"""What in the way that arms are called cannot be? Deadlines, queues, ejection, health checks, TLS.

Fields are named as on the wire; durations are bounded in milliseconds.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from policies.bounds import in_range
from policies.days import CALENDAR_DAY_MS
from policies.errors import BadSpec
from routing.types import Ejection, HealthCheck, Tls, Upstream

HOST = re.compile(r"[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?|\[[0-9a-f:.]+\]", re.IGNORECASE)
_HOUR_MS = 3_600_000
_PATH_AND_QUERY = re.compile(r"/[!\"$-~]*")
_FILE = re.compile(r"[^\x00-\x1f\x7f]{1,4096}")


def upstream_problems(upstream: Upstream) -> Iterator[BadSpec]:
    """Everything in how a route's arms are called that cannot be."""
    yield from in_range("upstream.timeout", upstream.timeout_ms, 1, _HOUR_MS, " ms")
    yield from in_range("upstream.connect_timeout", upstream.connect_timeout_ms, 1, 60_000, " ms")
    yield from in_range("upstream.max_connections", upstream.max_connections, 1, 65_536)
    yield from in_range("upstream.max_waiting", upstream.max_waiting, 0, 1_000_000)
    yield from in_range("upstream.retry_percent", upstream.retry_percent, 0, 10)
    if (hedge_ms := upstream.hedge_ms) is not None and not 1 <= hedge_ms < upstream.timeout_ms:
        bound = f"must be at least 1 ms and less than the timeout {upstream.timeout_ms} ms"
        yield BadSpec("upstream.hedge_after", f"{bound}, got {hedge_ms}")
    yield from _ejection_problems("upstream.ejection", upstream.ejection)
    if upstream.health_check is not None:
        yield from _health_check_problems("upstream.health_check", upstream.health_check)


def tls_problems(where: str, tls: Tls, url: str) -> Iterator[BadSpec]:
    """Everything in how an arm is verified that cannot be. The files are the gateway's: none is looked at."""
    if not url.lower().startswith("https:"):
        yield BadSpec(
            where, f"must be left out unless the url has scheme https, got {url.partition(':')[0]!r}"
        )
    for name in ("ca", "certificate", "key"):
        path = getattr(tls, name)
        if path is not None and not _FILE.fullmatch(path):
            yield BadSpec(f"{where}.{name}", f"must be the path of a file, got {path!r}")
    if tls.key is not None and tls.certificate is None:
        yield BadSpec(f"{where}.key", f"must come with a certificate, got {tls.key!r} alone")
    if tls.server_name is not None and not HOST.fullmatch(tls.server_name):
        bound = "must be a host name or address without a port"
        yield BadSpec(f"{where}.server_name", f"{bound}, got {tls.server_name!r}")


def _ejection_problems(where: str, ejection: Ejection) -> Iterator[BadSpec]:
    base_ms, longest_ms = ejection.base_ms, ejection.longest_ms
    yield from in_range(f"{where}.consecutive_failures", ejection.consecutive_failures, 1, 1_000)
    yield from in_range(f"{where}.failure_percent", ejection.failure_percent, 1, 100)
    yield from in_range(f"{where}.minimum_requests", ejection.minimum_requests, 1, 1_000_000)
    yield from in_range(f"{where}.interval", ejection.interval_ms, 100, _HOUR_MS, " ms")
    yield from in_range(f"{where}.base_time", base_ms, 1, CALENDAR_DAY_MS, " ms")
    yield from in_range(f"{where}.longest_time", longest_ms, 1, CALENDAR_DAY_MS, " ms")
    if longest_ms < base_ms:
        yield BadSpec(f"{where}.longest_time", f"must be at least base_time {base_ms} ms, got {longest_ms}")


def _health_check_problems(where: str, check: HealthCheck) -> Iterator[BadSpec]:
    if not _PATH_AND_QUERY.fullmatch(check.path):
        bound = "must be a path that starts with /, in ASCII, without spaces or a fragment"
        yield BadSpec(f"{where}.path", f"{bound}, got {check.path!r}")
    yield from in_range(f"{where}.interval", check.interval_ms, 100, _HOUR_MS, " ms")
    yield from in_range(f"{where}.timeout", check.timeout_ms, 1, 60_000, " ms")
    if check.timeout_ms > check.interval_ms:
        bound = f"must be at most the interval {check.interval_ms} ms"
        yield BadSpec(f"{where}.timeout", f"{bound}, got {check.timeout_ms}")
    for name in ("failures", "successes"):
        yield from in_range(f"{where}.{name}", getattr(check, name), 1, 100)
