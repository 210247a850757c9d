"""What the measured gateway routes by: routes with arms, a split on a sticky header, a metric."""

from __future__ import annotations

from collections.abc import Sequence

from benchmarks.calls import HEADER
from routing.claims import SigningKey
from routing.snapshot import Snapshot
from routing.types import TOTAL_BP, Arm, Match, MetricRule, Role, Route, Share, UnitKind, UnitSource

_KEY = SigningKey(id=1, secret=b"benchmark-secret-of-32-bytes----")
_DAY_MS = 86_400_000


def two_arms(ports: Sequence[int], *, routes: int = 1, shadow: int | None = None) -> Snapshot:
    """Routes whose users are split 90/10 over two arms, with a shadow arm on a third port if one is given."""
    return _snapshot([_route(number, ports, (9_000, TOTAL_BP), shadow) for number in range(1, routes + 1)])


def even_arms(ports: Sequence[int], arms: int) -> Snapshot:
    """One route whose users are split evenly over so many arms, which share the endpoints."""
    ends = [TOTAL_BP * number // arms for number in range(1, arms + 1)]
    return _snapshot([_route(1, [ports[number % len(ports)] for number in range(arms)], ends, None)])


def target(number: int) -> str:
    """The path of a route by its number, from 1 on."""
    return "/r/bench" if number == 1 else f"/r/bench-{number}"


def _snapshot(routes: Sequence[Route]) -> Snapshot:
    return Snapshot(version=1, created_at_ms=0, routes=tuple(routes), keys=(_KEY,))


def _route(number: int, ports: Sequence[int], ends: Sequence[int], shadow: int | None) -> Route:
    first = (number - 1) * (len(ports) + 1) + 1
    arms = [
        _arm(first + place, f"arm-{place}", port, Role.CHALLENGER if place else Role.CHAMPION)
        for place, port in enumerate(ports)
    ]
    shares = tuple(
        Share(arm_id=arm.id, start_bp=start, end_bp=end)
        for arm, start, end in zip(arms, [0, *ends], ends, strict=False)
    )
    if shadow is not None:
        arms.append(_arm(first + len(ports), "shadow", shadow, Role.SHADOW))
    return Route(
        id=number,
        name=target(number).removeprefix("/r/"),
        match=Match(path_prefix=target(number)),
        arms=tuple(arms),
        shares=shares,
        salt=f"{number}:1",
        epoch=1,
        unit=UnitSource(kind=UnitKind.HEADER, name=HEADER),
        metrics=(MetricRule(name="profit", kind="continuous", window_ms=_DAY_MS),),
    )


def _arm(number: int, name: str, port: int, role: Role) -> Arm:
    return Arm(id=number, name=name, url=f"http://127.0.0.1:{port}/score", role=role)
