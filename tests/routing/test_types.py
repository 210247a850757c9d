"""A route that contradicts itself cannot be built, nor read."""

from __future__ import annotations

import msgspec
import pytest

from routing.errors import BadSnapshot, RoutingError
from routing.types import TOTAL_BP, Arm, Match, MetricRule, Role, Route, Share

OLD = Arm(id=1, name="old", url="http://a", role=Role.CHAMPION)
NEW = Arm(id=2, name="new", url="http://b", role=Role.CHALLENGER)
METRIC = MetricRule(name="conversion", kind="binary", window_ms=1_000)


def share(arm_id: int, start_bp: int, end_bp: int) -> Share:
    """A range of buckets."""
    return Share(arm_id=arm_id, start_bp=start_bp, end_bp=end_bp)


def route(
    arms: tuple[Arm, ...] = (OLD, NEW),
    shares: tuple[Share, ...] = (share(2, 0, 1_000), share(1, 1_000, TOTAL_BP)),
    salt: str = "1:1",
) -> Route:
    """A route of these."""
    return Route(
        id=1,
        name="bid",
        match=Match(path_prefix="/r/bid"),
        arms=arms,
        shares=shares,
        salt=salt,
        epoch=1,
        metrics=(METRIC,),
    )


@pytest.mark.parametrize(
    ("shares", "message"),
    [
        ((), "shares must cover 10000 bp, got 0"),
        ((share(1, 0, 9_999),), "shares must cover 10000 bp, got 9999"),
        ((share(1, 0, 10_001),), "shares must cover 10000 bp, got 10001"),
        ((share(1, 1, TOTAL_BP),), "shares must be adjoining"),
        ((share(1, 0, 5_000), share(2, 5_001, TOTAL_BP)), "shares must be adjoining.* after 5000"),
        ((share(1, 0, 5_000), share(2, 4_999, TOTAL_BP)), "shares must be adjoining.* after 5000"),
        ((share(1, 0, TOTAL_BP), share(2, TOTAL_BP, TOTAL_BP)), "shares must be adjoining"),
        ((share(9, 0, TOTAL_BP),), "share of unknown arm id 9"),
    ],
)
def test_shares_that_do_not_cover_all_buckets_once_are_refused(
    shares: tuple[Share, ...], message: str
) -> None:
    """Gaps, overlaps, empty ranges and unknown arms; the refusal names the route."""
    with pytest.raises(BadSnapshot, match=f"route bid: {message}"):
        route(shares=shares)


@pytest.mark.parametrize(
    ("roles", "named"),
    [((Role.CHALLENGER, Role.CHALLENGER), r"\[\]"), ((Role.CHAMPION, Role.CHAMPION), r"\['old', 'new'\]")],
)
def test_a_route_has_exactly_one_champion(roles: tuple[Role, Role], named: str) -> None:
    """None and two are refused, by name."""
    arms = tuple(msgspec.structs.replace(arm, role=role) for arm, role in zip((OLD, NEW), roles, strict=True))
    with pytest.raises(BadSnapshot, match=f"arms must hold exactly one champion, got {named}"):
        route(arms=arms)


@pytest.mark.parametrize(("salt", "size"), [("", 0), ("s" * 65, 65), ("ü" * 33, 66)])
def test_a_salt_that_cannot_key_the_hash_is_refused(salt: str, size: int) -> None:
    """It is found when the route is built, not by the first request; the empty one would not be a key."""
    with pytest.raises(BadSnapshot, match=f"salt must be 1 to 64 bytes long, got {size}"):
        route(salt=salt)


def test_a_route_that_is_read_is_checked_as_one_that_is_built() -> None:
    """JSON is no way around the checks."""
    whole = msgspec.json.encode(route())
    assert msgspec.json.decode(whole, type=Route) == route()
    broken = whole.replace(b'"end_bp":10000', b'"end_bp":9999')
    with pytest.raises(msgspec.ValidationError, match="shares must cover 10000 bp, got 9999"):
        msgspec.json.decode(broken, type=Route)


def test_facts_are_frozen() -> None:
    """Nobody changes a route under those who route by it."""
    fact: object = route()
    for name in ("kill_switch", "shares"):
        with pytest.raises(AttributeError):
            setattr(fact, name, True)


def test_look_ups_find_what_is_there_and_nothing_else() -> None:
    """By bucket and by name; who is not there is None."""
    found = route()
    assert found.champion == OLD
    assert {choice.arm.id for choice in found.choices} == set(found.probabilities)
    assert (found.arm_named("new"), found.arm_named("New")) == (NEW, None)
    assert (found.metric("conversion"), found.metric("profit")) == (METRIC, None)


def test_everything_that_routing_refuses_is_one_family() -> None:
    """Whoever routes can catch it as one, and as a ValueError."""
    assert issubclass(BadSnapshot, RoutingError)
    assert issubclass(RoutingError, ValueError)
