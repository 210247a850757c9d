"""How arms are called, from the wire to its declaration and back."""

from __future__ import annotations

from app.control.schemas import EjectionDocument, HealthCheckDocument, UpstreamDocument
from app.durations import format_duration, parse_duration
from routing.types import Ejection, HealthCheck, Upstream


def upstream_of(document: UpstreamDocument) -> Upstream:
    """How a route's arms are called, not checked."""
    hedge, check = document.hedge_after, document.health_check
    return Upstream(
        timeout_ms=parse_duration(document.timeout),
        connect_timeout_ms=parse_duration(document.connect_timeout),
        max_connections=document.max_connections,
        max_waiting=document.max_waiting,
        fallback=document.fallback,
        retry_percent=document.retry_percent,
        hedge_ms=None if hedge is None else parse_duration(hedge),
        ejection=_ejection_of(document.ejection),
        health_check=None if check is None else _health_check_of(check),
    )


def upstream_document(upstream: Upstream) -> UpstreamDocument:
    """As a file would declare it, every default written out."""
    hedge_ms, check = upstream.hedge_ms, upstream.health_check
    return UpstreamDocument(
        timeout=format_duration(upstream.timeout_ms),
        connect_timeout=format_duration(upstream.connect_timeout_ms),
        max_connections=upstream.max_connections,
        max_waiting=upstream.max_waiting,
        fallback=upstream.fallback,
        retry_percent=upstream.retry_percent,
        hedge_after=None if hedge_ms is None else format_duration(hedge_ms),
        ejection=_ejection_document(upstream.ejection),
        health_check=None if check is None else _health_check_document(check),
    )


def _ejection_of(document: EjectionDocument) -> Ejection:
    return Ejection(
        consecutive_failures=document.consecutive_failures,
        failure_percent=document.failure_percent,
        minimum_requests=document.minimum_requests,
        interval_ms=parse_duration(document.interval),
        base_ms=parse_duration(document.base_time),
        longest_ms=parse_duration(document.longest_time),
    )


def _ejection_document(ejection: Ejection) -> EjectionDocument:
    return EjectionDocument(
        consecutive_failures=ejection.consecutive_failures,
        failure_percent=ejection.failure_percent,
        minimum_requests=ejection.minimum_requests,
        interval=format_duration(ejection.interval_ms),
        base_time=format_duration(ejection.base_ms),
        longest_time=format_duration(ejection.longest_ms),
    )


def _health_check_of(document: HealthCheckDocument) -> HealthCheck:
    return HealthCheck(
        path=document.path,
        interval_ms=parse_duration(document.interval),
        timeout_ms=parse_duration(document.timeout),
        failures=document.failures,
        successes=document.successes,
    )


def _health_check_document(check: HealthCheck) -> HealthCheckDocument:
    return HealthCheckDocument(
        path=check.path,
        interval=format_duration(check.interval_ms),
        timeout=format_duration(check.timeout_ms),
        failures=check.failures,
        successes=check.successes,
    )
