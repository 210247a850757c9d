"""Claims about what an arm is sent, and what of an arm's answer its caller gets."""

from __future__ import annotations

import pytest

from routing.types import Arm, ArmHeader, Match, Role
from tests.app.gateway.stage import OK, ArmServer, Stage, request

FORGED = b"\r\n".join(
    (
        b"GET /r/bid HTTP/1.1",
        b"Host: a",
        b"Kingmaker-Decision: evil",
        b"Kingmaker_Arm: evil",
        b"KINGMAKER-ROUTE: evil",
        b"Kingmaker-Key: k",
        b"Content_Length: 5",
        b"Transfer_Encoding: chunked",
        b"X_Forwarded_For: evil",
        b"",
        b"",
    )
)


async def test_the_arm_gets_the_request_and_what_it_needs_to_know(stage: Stage) -> None:
    """Path, query, body and headers arrive; hop-by-hop fields do not; decision, route and arm are added."""
    stage.route(0)
    await stage.ask(
        "POST", "/r/bid/a%2Fb?x=1", b"hello", X_Custom="kept", Connection="X-Gone", X_Gone="1", TE="gzip"
    )
    (seen,) = stage.champion.seen
    assert seen.line == "POST /score/a%2Fb?x=1 HTTP/1.1"
    assert seen.body == b"hello"
    assert seen["x-custom"] == "kept"
    assert seen["x-gone"] is seen["te"] is seen["connection"] is None
    assert seen["host"] == f"127.0.0.1:{stage.champion.port}"
    assert seen["x-forwarded-for"] == "127.0.0.1"
    assert seen["x-forwarded-host"] == "gateway.test"
    assert (seen["kingmaker-route"], seen["kingmaker-arm"]) == ("bid", "old")


async def test_our_headers_cannot_be_forged(stage: Stage) -> None:
    """Kingmaker headers of the caller and of the arm are removed, in every spelling."""
    stage.route(0)
    stage.champion.script = ArmServer.say(
        b"HTTP/1.1 200 OK\r\nKingmaker-Arm: evil\r\nkingmaker-x: 1\r\nContent-Length: 0\r\n\r\n"
    )
    answer = await stage.send(FORGED)
    (seen,) = stage.champion.seen
    assert answer.all("kingmaker-arm") == ["old"]
    assert answer["kingmaker-x"] is None
    assert seen.all("kingmaker-decision") == [answer["kingmaker-decision"]]
    assert {name for name, value in seen.fields if value in ("evil", "k", "5", "chunked")} == set()


async def test_what_a_stranger_says_of_its_way_is_replaced(stage: Stage) -> None:
    """Whoever is no proxy of ours is not believed about where a request has been."""
    stage.route(0)
    await stage.ask(X_Forwarded_For="10.0.0.9", X_Forwarded_Proto="https")
    (seen,) = stage.champion.seen
    assert seen.all("x-forwarded-for") == ["127.0.0.1"]
    assert seen.all("x-forwarded-proto") == ["http"]


async def test_an_arm_gets_its_own_headers_and_query(stage: Stage) -> None:
    """Declared headers replace the caller's; the arm's own query comes first."""
    url = f"http://127.0.0.1:{stage.champion.port}/score?key=1"
    headers = (ArmHeader(name="Authorization", value="Bearer arm"),)
    champion = Arm(id=1, name="old", url=url, role=Role.CHAMPION, headers=headers)
    stage.route(0, arms=(champion,))
    await stage.ask(path="/r/bid?x=2", Authorization="Bearer caller")
    (seen,) = stage.champion.seen
    assert seen.line == "GET /score?key=1&x=2 HTTP/1.1"
    assert [value for name, value in seen.fields if name == "authorization"] == ["Bearer arm"]


@pytest.mark.parametrize(
    ("path", "arrives"),
    [
        ("/r/bid", "/score"),
        ("/r/bid/", "/score/"),
        ("/r/bid?", "/score"),
        ("/r/bid?a=%20&a=2&b", "/score?a=%20&a=2&b"),
        ("/r/bid/v1/x;y=1?q=/../", "/score/v1/x;y=1?q=/../"),
        ("/r/bid//twice", "/score/twice"),
    ],
)
async def test_what_follows_the_match_is_appended(stage: Stage, path: str, arrives: str) -> None:
    """Path and query arrive byte for byte behind the arm's own path."""
    stage.route(0)
    assert (await stage.ask(path=path)).status == 200
    assert stage.champion.seen[0].line == f"GET {arrives} HTTP/1.1"


async def test_a_prefix_ends_at_a_segment(stage: Stage) -> None:
    """`/r/bidder` is not below `/r/bid`."""
    stage.route(0, match=Match(path_prefix="/r/bid"))
    assert (await stage.ask(path="/r/bidder")).status == 404
    assert stage.champion.seen == []


async def test_authorization_belongs_to_the_application(stage: Stage) -> None:
    """It is forwarded as it came, unless the arm has one of its own."""
    stage.route(0)
    await stage.ask(Authorization="Bearer caller")
    assert stage.champion.seen[0].all("authorization") == ["Bearer caller"]


async def test_a_secret_of_an_arm_comes_from_the_environment(stage: Stage) -> None:
    """It replaces the caller's header of that name, and the caller never sees it."""
    stage.environment["MODEL_TOKEN"] = "Bearer secret"
    stage.route(0, arms=stage.arms(Authorization="MODEL_TOKEN", X_Missing="NOT_SET"))
    answer = await stage.ask(Authorization="Bearer caller")
    (seen,) = stage.champion.seen
    assert seen.all("authorization") == ["Bearer secret"]
    assert seen["x_missing"] is None
    assert "secret" not in str(answer)


async def test_repeated_fields_arrive_in_order(stage: Stage) -> None:
    """Fields that may come several times do, both ways."""
    stage.route(0)
    stage.champion.script = ArmServer.say(
        b"HTTP/1.1 200 OK\r\nSet-Cookie: a=1\r\nContent-Length: 0\r\nSet-Cookie: b=2\r\n\r\n"
    )
    answer = await stage.send(b"GET /r/bid HTTP/1.1\r\nHost: a\r\nX: 1\r\nY: -\r\nX: 2\r\n\r\n")
    assert stage.champion.seen[0].all("x") == ["1", "2"]
    assert answer.all("set-cookie") == ["a=1", "b=2"]


async def test_fields_of_one_connection_stay_on_it(stage: Stage) -> None:
    """What an arm says of its own connection, and what it names as such, does not reach the caller."""
    stage.route(0)
    stage.champion.script = ArmServer.say(
        b"HTTP/1.1 200 OK\r\nConnection: X-Gone, Upgrade\r\nX-Gone: 1\r\nKeep-Alive: timeout=5\r\n"
        b"Upgrade: h2c\r\nX-Kept: 1\r\nContent-Length: 2\r\n\r\nok"
    )
    answer = await stage.ask()
    assert (answer.status, answer.body, answer["x-kept"]) == (200, b"ok", "1")
    assert answer["x-gone"] is answer["keep-alive"] is answer["upgrade"] is answer["connection"] is None


@pytest.mark.parametrize("method", ["GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "HEAD", "PROPFIND"])
async def test_any_method_is_proxied(stage: Stage, method: str) -> None:
    """The arm gets the caller's method, and a body where there is one."""
    stage.route(0)
    stage.champion.script = ArmServer.say(b"HTTP/1.1 204 No Content\r\n\r\n")
    assert (await stage.send(request(method, body=b"x"))).status == 204
    (seen,) = stage.champion.seen
    assert (seen.line, seen.body) == (f"{method} /score HTTP/1.1", b"x")


async def test_an_arm_may_offer_another_protocol(stage: Stage) -> None:
    """A 200 that offers an upgrade is an ordinary answer, and its connection is used again."""
    stage.route(0)
    stage.champion.script = ArmServer.say(
        OK.replace(b"\r\n\r\n", b"\r\nUpgrade: h2c\r\nConnection: Upgrade\r\n\r\n")
    )
    assert [(await stage.ask()).body for _ in range(2)] == [b"ok", b"ok"]
    assert stage.champion.connections == 1
