"""What the measured gateway routes by: routes with arms, a sticky split or a bandit, overrides, a metric."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from msgspec.structs import replace

from benchmarks.calls import HEADER
from benchmarks.contexts import NARROW, contexts
from benchmarks.overrides import overrides
from routing.bandit import BanditTerms, Learned
from routing.claims import SigningKey
from routing.context import Encoder
from routing.features import Feature, Source, SourceKind
from routing.learning import learned_of
from routing.linear_model import Sums
from routing.snapshot import Snapshot
from routing.types import TOTAL_BP, Arm, Match, MetricRule, Role, Route, Share

_KEY = SigningKey(id=1, secret=b"benchmark-secret-of-32-bytes----")
_DAY_MS = 86_400_000
_REWARDS = 2_000
_SLOPE = 0.02
"""How much arms differ by each column of a context: with a noise of 1 none is sure to be the best."""


def two_arms(ports: Sequence[int], *, routes: int = 1, shadow: int | None = None) -> Snapshot:
    """Routes whose users are split 90/10 over two arms, with a shadow arm on a third port if one is given."""
    return _snapshot([_route(number, ports, (9_000, TOTAL_BP), shadow) for number in range(1, routes + 1)])


def even_arms(ports: Sequence[int], arms: int) -> Snapshot:
    """One route whose users are split evenly over so many arms, which share the endpoints."""
    ends = [TOTAL_BP * number // arms for number in range(1, arms + 1)]
    return _snapshot([_route(1, [ports[number % len(ports)] for number in range(arms)], ends, None)])


def pinned(ports: Sequence[int], count: int, *, last_holds: bool = False) -> Snapshot:
    """One route with a context of four headers, two arms as above and so many overrides."""
    route = _route(1, ports, (9_000, TOTAL_BP), None)
    found = overrides(count, route.arms[-1].id, last_holds=last_holds)
    return _snapshot([replace(route, context=NARROW, overrides=found)])


def thompson(ports: Sequence[int], features: Sequence[Feature]) -> Snapshot:
    """One route with an arm at each port, chosen by a bandit that has learnt of 2,000 rewards of each."""
    route = _route(1, ports, (TOTAL_BP,), None)
    learned = _learned([arm.id for arm in route.arms], features)
    return _snapshot([replace(route, context=tuple(features), bandit=BanditTerms(learned=learned))])


def kept(ports: Sequence[int]) -> Snapshot:
    """One route with two arms as above, whose users keep the first one that they got."""
    return _snapshot([replace(_route(1, ports, (9_000, TOTAL_BP), None), first_arm_ms=_DAY_MS)])


def target(number: int) -> str:
    """The path of a route by its number, from 1 on."""
    return "/r/bench" if number == 1 else f"/r/bench-{number}"


def _learned(arm_ids: Sequence[int], features: Sequence[Feature]) -> Learned:
    encoder = Encoder(features)
    rows = encoder.encode_many([encoder.read(raw) for raw in contexts(features, _REWARDS)])
    draw = np.random.default_rng(1)
    sums = {}
    for arm_id in arm_ids:
        rewards = rows @ draw.normal(0, _SLOPE, encoder.width) + draw.normal(0, 1, _REWARDS)
        sums[arm_id] = Sums.empty(encoder.width).plus_many(rows, rewards, 0, 1.0)
    return learned_of(sums, 1.0, encoder.version if features else 0, 0)


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
        unit=Source(kind=SourceKind.HEADER, name=HEADER),
        metrics=(MetricRule(name="profit", kind="continuous", window_ms=_DAY_MS),),
    )


def _arm(number: int, name: str, port: int, role: Role) -> Arm:
    return Arm(id=number, name=name, url=f"http://127.0.0.1:{port}/score", role=role)
