"""A request finds its route by the longest prefix, at the same cost whatever else is routed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from routing.claims import SigningKey
from routing.errors import BadSnapshot
from routing.features import Source, SourceKind
from routing.snapshot import RouteTable, Snapshot
from routing.types import TOTAL_BP, Arm, ArmHeader, Match, MetricRule, Role, Route, Share, Upstream

KEY = SigningKey(id=1, secret=b"k" * 32)


def route(number: int, prefix: str | None = None, host: str | None = None, **changes: Any) -> Route:
    """Route `r1`, `r2`, … with one arm."""
    settings: dict[str, Any] = {
        "id": number,
        "name": f"r{number}",
        "match": Match(path_prefix=prefix, host=host),
        "arms": (Arm(id=number, name="old", url="http://a", role=Role.CHAMPION),),
        "shares": (Share(arm_id=number, start_bp=0, end_bp=TOTAL_BP),),
        "salt": "s",
        "epoch": 1,
    }
    return Route(**{**settings, **changes})


def snapshot(*routes: Route) -> Snapshot:
    """A snapshot of these routes."""
    return Snapshot(version=1, created_at_ms=0, routes=routes, keys=(KEY,))


def table(*routes: Route) -> RouteTable:
    """The look-up over these routes."""
    return RouteTable(snapshot(*routes))


def found(routes: RouteTable, host: str, path: str) -> str | None:
    """The name of a request's route."""
    match = routes.find(host, path)
    return match.name if match else None


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("/r/bid", "r1"),
        ("/r/bid/", "r1"),
        ("/r/bid/x", "r1"),
        ("/r/bid/v2", "r2"),
        ("/r/bid/v2/x/y", "r2"),
        ("/r/bid/v22", "r1"),
        ("/r/bidder", None),
        ("/r", None),
        ("/R/bid", None),
        ("/x/r/bid", None),
        ("/", None),
        ("", None),
        ("*", None),
    ],
)
def test_the_longest_prefix_at_a_segment_boundary_wins(path: str, name: str | None) -> None:
    """A prefix ends where a segment does, so one route is no prefix of a longer word."""
    assert found(table(route(1, "/r/bid"), route(2, "/r/bid/v2")), "any", path) == name


@pytest.mark.parametrize("prefix", ["/r/bid", "/r/bid/"])
def test_a_slash_at_the_end_of_a_prefix_says_nothing(prefix: str) -> None:
    """With or without it, the same requests match."""
    routes = table(route(1, prefix))
    assert [found(routes, "", path) for path in ("/r/bid", "/r/bid/", "/r/bid/x")] == ["r1"] * 3


@pytest.mark.parametrize(
    ("host", "path", "name"),
    [
        ("api.example", "/a", "r2"),
        ("API.Example", "/a/x", "r2"),
        ("api.example:8080", "/a", "r2"),
        ("api.example", "/a/long", "r2"),
        ("api.example", "/b", "r3"),
        ("api.example", "/nothing", None),
        ("other.example", "/a", "r1"),
        ("other.example", "/a/long", "r4"),
        ("", "/a", "r1"),
        ("[::1]:8080", "/v6", "r5"),
        ("[::1]", "/v6", "r5"),
        ("[::2]:8080", "/v6", None),
    ],
)
def test_a_route_for_the_host_is_preferred(host: str, path: str, name: str | None) -> None:
    """Even to a longer prefix of a route for any host; the port and the case of letters do not matter."""
    routes = table(
        route(1, "/a"),
        route(2, "/a", "Api.example"),
        route(3, "/b"),
        route(4, "/a/long"),
        route(5, "/v6", "[::1]"),
    )
    assert found(routes, host, path) == name


def test_a_host_alone_takes_every_path() -> None:
    """Its prefixes come first, and other hosts are none of its business."""
    routes = table(route(1, None, "a.example"), route(2, "/x", "a.example"))
    assert [found(routes, "a.example", path) for path in ("/", "/y/z", "/x/y", "*")] == [
        "r1",
        "r1",
        "r2",
        "r1",
    ]
    assert found(routes, "b.example", "/x") is None


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (("/a", None), ("/a", None)),
        (("/a", None), ("/a/", None)),
        (("/a", "a.example"), ("/a", "a.example")),
        (("/a", "a.example"), ("/a", "A.Example")),
        ((None, "a.example"), ("/", "a.example")),
        ((None, "a.example"), (None, "a.example:80")),
    ],
)
def test_two_routes_with_the_same_match_are_refused(
    first: tuple[str | None, str | None], second: tuple[str | None, str | None]
) -> None:
    """However they are written: if the same requests match, one of them would never be found."""
    with pytest.raises(BadSnapshot, match="routes r1 and r2 have the same match"):
        snapshot(route(1, *first), route(2, *second))


def test_a_snapshot_needs_a_key() -> None:
    """Without one, no decision could be signed."""
    with pytest.raises(BadSnapshot, match="keys must hold at least one signing key, got none"):
        Snapshot(version=1, created_at_ms=0, routes=(), keys=())


class Counting(dict[str, Route]):
    """A dictionary that counts how often it is asked."""

    asked = 0

    def get(self, *arguments: Any) -> Any:
        self.asked += 1
        return super().get(*arguments)


def looked_up(routes: Sequence[Route], host: str, path: str) -> int:
    """How many look-ups it takes to answer a request."""
    routing = table(*routes)
    counting = [Counting(places) for places in (routing._anywhere, *routing._by_host.values())]
    routing._anywhere, routing._by_host = counting[0], dict(zip(routing._by_host, counting[1:], strict=True))
    routing.find(host, path)
    return sum(places.asked for places in counting)


@pytest.mark.parametrize("path", ["/r/bid", "/r/bid/a/b/c", "/nothing/at/all", "/"])
@pytest.mark.parametrize("host", ["any.example", "h0.example"])
def test_the_cost_of_a_look_up_does_not_grow_with_the_routes(host: str, path: str) -> None:
    """It takes at most one per segment and one more, for the host and for any host; 2,000 routes add none."""
    few = [route(1, "/r/bid"), route(2, "/a", "h0.example"), route(2_000, "/as/long/as/any")]
    others = [route(number, f"/r/other-{number}/x") for number in range(3, 1_000)]
    hosts = [route(number, "/a", f"h{number}.example") for number in range(1_000, 2_000)]
    asked = looked_up(few, host, path)
    assert looked_up([*others, *few, *hosts], host, path) == asked <= 2 * (path.rstrip("/").count("/") + 1)


@given(
    prefixes=st.sets(st.lists(st.sampled_from("ab"), max_size=4).map(tuple), min_size=1, max_size=8),
    asked=st.lists(st.sampled_from("abc"), max_size=6).map(tuple),
)
def test_the_look_up_agrees_with_a_search_through_all(
    prefixes: set[tuple[str, ...]], asked: tuple[str, ...]
) -> None:
    """Of the prefixes that the path begins with, segment by segment, it is the longest."""
    routes = {
        prefix: route(number, "/" + "/".join(prefix)) for number, prefix in enumerate(sorted(prefixes), 1)
    }
    fitting = [prefix for prefix in prefixes if asked[: len(prefix)] == prefix]
    expected = routes[max(fitting, key=len)].name if fitting else None
    assert found(table(*routes.values()), "any", "/" + "/".join(asked)) == expected


def test_routes_and_keys_are_found_by_what_tokens_and_callers_name() -> None:
    """By numeric id and by name; who is not there is None."""
    routes = table(route(1, "/a"), route(2, "/b"))
    assert (routes.by_id(2), routes.by_id(3)) == (route(2, "/b"), None)
    assert (routes.by_name("r1"), routes.by_name("R1")) == (route(1, "/a"), None)
    assert routes.keys == {KEY.id: KEY}


def test_a_snapshot_survives_its_file() -> None:
    """Written as JSON and read again it is the same, every optional part included."""
    arm = Arm(
        id=1,
        name="old",
        url="http://a/score?k=1",
        role=Role.CHAMPION,
        headers=(ArmHeader(name="Authorization", env="TOKEN"), ArmHeader(name="X", value="y")),
    )
    rich = route(
        1,
        "/r/bid",
        "a.example",
        arms=(arm, Arm(id=2, name="new", url="http://b", role=Role.CHALLENGER)),
        unit=Source(kind=SourceKind.JSON, name="/user/id"),
        metrics=(MetricRule(name="conversion", kind="binary", window_ms=86_400_000),),
        upstream=Upstream(timeout_ms=1, connect_timeout_ms=2, max_connections=3, fallback=False),
        allow_force=True,
        kill_switch=True,
    )
    second = SigningKey(id=65_535, secret=bytes(range(64)))
    whole = Snapshot(version=2**63, created_at_ms=2**44, routes=(rich, route(2, "/b")), keys=(second, KEY))
    assert msgspec.json.decode(msgspec.json.encode(whole), type=Snapshot) == whole
