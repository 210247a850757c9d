"""Claims about one exchange: who answers, what both sides see, what is written down."""

from __future__ import annotations

import asyncio

import pytest

from app.gateway import decisions
from routing.assignment import Assignment
from routing.types import Arm, ArmHeader, Match, Reason, Role, Route, UnitKind, UnitSource, Upstream
from tests.app.gateway.stage import OK, ArmServer, Message, Stage, claims_of, request, until

BY_USER = UnitSource(kind=UnitKind.HEADER, name="X-User-Id")


async def test_a_unit_always_gets_the_same_arm(stage: Stage) -> None:
    """Twenty requests of one user are answered by one arm; forty users are divided among both."""
    stage.route(unit=BY_USER)
    same = {(await stage.ask(X_User_Id="u1"))["kingmaker-arm"] for _ in range(20)}
    many = {(await stage.ask(X_User_Id=f"u{n}"))["kingmaker-arm"] for n in range(40)}
    assert len(same) == 1
    assert many == {"old", "new"}


async def test_the_answer_names_decision_arm_and_reason(stage: Stage) -> None:
    """The token verifies and says what was decided, with the propensity of the draw."""
    stage.route(2_500, unit=BY_USER)
    answer = await stage.ask(X_User_Id="u1")
    claims = claims_of(answer)
    assert answer.status == 200
    assert answer["kingmaker-reason"] == "SPLIT"
    assert answer["kingmaker-arm"] == {1: "old", 2: "new"}[claims.arm_id]
    assert claims.propensity_bp == {1: 7_500, 2: 2_500}[claims.arm_id]
    assert (claims.route_id, claims.epoch, claims.snapshot, claims.has_unit) == (1, 3, stage.version, True)


async def test_a_decision_is_written_down_once(stage: Stage) -> None:
    """The event says what the token says, who served, and how the assigned arm did."""
    stage.route(0)
    answer = await stage.ask()
    (event,) = stage.spool.events
    assert event.decision == claims_of(answer)
    assert (event.served_arm_id, event.status, event.error) == (1, 200, False)
    assert event.latency_ms is not None
    assert event.latency_ms > 0


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
    """Kingmaker headers of the caller and of the arm are removed, in every spelling that a server may accept."""
    stage.route(0)
    stage.champion.script = ArmServer.say(
        b"HTTP/1.1 200 OK\r\nKingmaker-Arm: evil\r\nkingmaker-x: 1\r\nContent-Length: 0\r\n\r\n"
    )
    answer = await stage.send(
        b"GET /r/bid HTTP/1.1\r\nHost: a\r\nKingmaker-Decision: evil\r\nKingmaker_Arm: evil\r\n"
        b"Content_Length: 5\r\nKingmaker-Key: k\r\n\r\n"
    )
    (seen,) = stage.champion.seen
    assert [value for name, value in answer.fields if name == "kingmaker-arm"] == ["old"]
    assert answer["kingmaker-x"] is None
    assert "evil" not in {value for _, value in seen.fields}
    assert seen["kingmaker-key"] is seen["content_length"] is None


async def test_forwarded_chains_are_continued(stage: Stage) -> None:
    """A proxy in front is believed about addresses it names; our peer is appended."""
    stage.route(0)
    await stage.ask(X_Forwarded_For="10.0.0.9", X_Forwarded_Proto="https")
    (seen,) = stage.champion.seen
    assert seen["x-forwarded-for"] == "10.0.0.9, 127.0.0.1"
    assert seen["x-forwarded-proto"] == "https"


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


async def test_no_route_is_a_problem(stage: Stage) -> None:
    """A path under no match is answered 404 with a problem document."""
    answer = await stage.ask(path="/elsewhere")
    assert answer.status == 404
    assert answer["content-type"] == "application/problem+json"


async def test_without_a_snapshot_nothing_is_routed(stage: Stage) -> None:
    """Before the first snapshot requests get 503 and readiness says no."""
    stage.worker.routing = None
    assert (await stage.ask()).status == 503
    assert (await stage.ask(path="/readyz")).status == 503
    assert (await stage.ask(path="/healthz")).status == 200


async def test_a_host_routes_too(stage: Stage) -> None:
    """A route may be matched by host alone; its whole path is appended."""
    stage.route(0, match=Match(host="bid.test"))
    answer = await stage.send(b"GET http://bid.test/v1/chat?a=1 HTTP/1.1\r\nHost: other\r\n\r\n")
    assert answer.status == 200
    assert stage.champion.seen[0].line == "GET /score/v1/chat?a=1 HTTP/1.1"


async def close_at_once(_: Message, writer: asyncio.StreamWriter) -> None:
    """An arm that dies while it answers."""
    writer.close()


async def say_nothing(_: Message, __: asyncio.StreamWriter) -> None:
    """An arm that hangs."""


FAULTS = {
    "5xx": ArmServer.say(b"HTTP/1.1 503 No\r\nContent-Length: 3\r\n\r\nbad"),
    "closed": close_at_once,
    "garbage": ArmServer.say(b"\x00\x01nonsense\r\n\r\n"),
    "bare line feeds": ArmServer.say(b"HTTP/1.1 200 OK\nContent-Length: 2\n\nok"),
    "two framings": ArmServer.say(
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"
    ),
    "endless head": ArmServer.say(b"HTTP/1.1 200 OK\r\nX: " + b"y" * 200_000),
    "switching": ArmServer.say(b"HTTP/1.1 101 S\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n"),
}


@pytest.mark.parametrize("fault", FAULTS)
async def test_the_champion_answers_for_a_failing_challenger(stage: Stage, fault: str) -> None:
    """Whatever the challenger does wrong, the caller gets the champion's answer, and the event says so."""
    stage.route(10_000)
    stage.challenger.script = FAULTS[fault]
    answer = await stage.ask("POST", body=b"payload")
    (event,) = stage.spool.events
    assert (answer.status, answer.body) == (200, b"ok")
    assert answer["kingmaker-arm"] == "old"
    assert answer["kingmaker-assigned-arm"] == "new"
    assert answer["kingmaker-reason"] == "FALLBACK"
    assert claims_of(answer).reason is Reason.STATIC
    assert stage.champion.seen[0].body == b"payload"
    assert (event.served_arm_id, event.error, event.decision.arm_id) == (1, True, 2)


async def test_a_refused_connection_falls_back(stage: Stage) -> None:
    """A challenger that is not there costs the caller nothing."""
    stage.route(10_000)
    await stage.challenger.stop()
    answers = [await stage.ask() for _ in range(20)]
    assert {answer.status for answer in answers} == {200}
    assert {answer["kingmaker-reason"] for answer in answers} == {"FALLBACK"}


async def test_a_silent_challenger_has_half_of_the_deadline(stage: Stage) -> None:
    """The champion answers within the caller's deadline after the challenger has said nothing."""
    stage.route(10_000, upstream=Upstream(timeout_ms=400))
    stage.challenger.script = say_nothing
    answer = await stage.ask()
    (event,) = stage.spool.events
    assert (answer.status, answer["kingmaker-reason"]) == (200, "FALLBACK")
    assert event.error is True
    assert event.latency_ms is not None
    assert event.latency_ms >= 200


async def test_without_fallback_the_fault_is_the_callers(stage: Stage) -> None:
    """Where fallback is off the challenger's own answer passes."""
    stage.route(10_000, upstream=Upstream(fallback=False))
    stage.challenger.script = FAULTS["5xx"]
    answer = await stage.ask()
    assert (answer.status, answer.body) == (503, b"bad")


async def test_the_champions_own_failure_passes(stage: Stage) -> None:
    """Its 5xx reaches the caller, marked as an error of the champion."""
    stage.route(0)
    stage.champion.script = FAULTS["5xx"]
    answer = await stage.ask()
    assert (answer.status, answer.body) == (503, b"bad")
    assert stage.spool.events[0].error is True


@pytest.mark.parametrize(
    ("fault", "status"), [("closed", 502), ("garbage", 502), ("silent", 504), ("gone", 502)]
)
async def test_nobody_can_answer(stage: Stage, fault: str, status: int) -> None:
    """A champion that fails leaves a problem document that still names the decision."""
    stage.route(0, upstream=Upstream(timeout_ms=200))
    stage.champion.script = FAULTS.get(fault, say_nothing)
    if fault == "gone":
        await stage.champion.stop()
    answer = await stage.ask("POST", body=b"x")
    (event,) = stage.spool.events
    assert (answer.status, answer["content-type"]) == (status, "application/problem+json")
    assert event.decision == claims_of(answer)
    assert (event.served_arm_id, event.status, event.error) == (None, status, True)


async def test_a_full_pool_is_said(stage: Stage) -> None:
    """When every connection is busy until the deadline, the caller is asked to come back."""
    stage.route(0, upstream=Upstream(timeout_ms=300, max_connections=1))
    stage.champion.script = say_nothing
    answers = await asyncio.gather(*(stage.ask() for _ in range(3)))
    assert sorted(answer.status for answer in answers) == [503, 503, 504]
    assert {answer["retry-after"] for answer in answers if answer.status == 503} == {"1"}


async def test_a_queue_moves_on(stage: Stage) -> None:
    """More callers than connections are all answered, over no more connections than allowed."""
    stage.route(0, upstream=Upstream(max_connections=2))
    answers = await asyncio.gather(*(stage.ask() for _ in range(20)))
    assert {answer.status for answer in answers} == {200}
    assert stage.champion.connections <= 2


async def test_a_large_body_has_no_second_chance(stage: Stage) -> None:
    """A body beyond what is kept is not sent again: the challenger's failure is the caller's."""
    stage.route(10_000)
    stage.challenger.script = FAULTS["5xx"]
    answer = await stage.ask("POST", body=b"x" * (2 * 1024 * 1024))
    assert answer.status == 503
    assert stage.champion.seen == []


async def test_connections_to_arms_are_kept(stage: Stage) -> None:
    """Ten requests one after another need one connection."""
    stage.route(0)
    for _ in range(10):
        await stage.ask()
    assert stage.champion.connections == 1


async def test_a_stale_connection_is_replaced_for_idempotent_requests(stage: Stage) -> None:
    """A GET on a connection that the arm closes in that moment is repeated once; a POST is not."""
    stage.route(0)

    async def once(_: Message, writer: asyncio.StreamWriter) -> None:
        if len(stage.champion.seen) % 2 == 1:
            writer.write(OK)
        else:
            writer.close()

    stage.champion.script = once
    assert (await stage.ask()).status == 200
    assert (await stage.ask()).status == 200
    assert stage.counted("kingmaker_upstream_retries_total") == 1
    assert (await stage.ask("POST", body=b"x")).status == 502


async def test_a_restarted_arm_is_found_again(stage: Stage) -> None:
    """After the arm has dropped its connections and come back, callers see nothing of it."""
    stage.route(0)
    await stage.ask()
    await stage.champion.stop()
    await stage.champion.start()
    assert (await stage.ask("POST", body=b"x")).status == 200


async def test_surplus_bytes_are_never_handed_to_the_next_caller(stage: Stage) -> None:
    """A connection on which the arm said more than one answer is not used again."""
    stage.route(0)
    stage.champion.script = ArmServer.say(OK + b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nsecret")
    answers = [await stage.ask() for _ in range(3)]
    assert {answer.body for answer in answers} == {b"ok"}
    assert stage.champion.connections == 3


async def test_a_caller_that_leaves_is_no_error_of_the_arm(stage: Stage) -> None:
    """The attempt is abandoned, its connection closed, and nothing is held against the arm."""
    stage.route(0)
    stage.champion.script = say_nothing
    _, writer = await stage.connect()
    writer.write(request())
    await until(lambda: len(stage.champion.seen) == 1)
    writer.close()
    await until(lambda: len(stage.spool.events) == 1)
    await until(lambda: not stage.champion.open)
    (event,) = stage.spool.events
    assert (event.error, event.served_arm_id) == (None, None)


async def test_force_header_needs_permission(stage: Stage) -> None:
    """The arm that a caller names is used only where the route allows it, and never passed on."""
    stage.route(0, allow_force=False)
    plain = await stage.ask(Kingmaker_Force_Arm="new")
    stage.route(0, allow_force=True)
    forced = await stage.ask(Kingmaker_Force_Arm="new")
    assert (plain["kingmaker-arm"], plain["kingmaker-reason"]) == ("old", "STATIC")
    assert (forced["kingmaker-arm"], forced["kingmaker-reason"]) == ("new", "FORCED")
    assert stage.challenger.seen[0]["kingmaker-force-arm"] is None


async def test_kill_switch_sends_all_to_the_champion(stage: Stage) -> None:
    """With the kill switch on, the split does not matter."""
    stage.route(10_000, kill_switch=True)
    answer = await stage.ask()
    assert (answer["kingmaker-arm"], answer["kingmaker-reason"]) == ("old", "KILL_SWITCH")


async def test_failed_assignment_is_the_champions(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    """Any fault in assignment ends in the champion, with reason DEFAULT and certainty."""

    def broken(*_: object) -> Assignment:
        raise RuntimeError("broken")

    monkeypatch.setattr(decisions, "assign", broken)
    stage.route(10_000)
    answer = await stage.ask()
    assert (answer.status, answer["kingmaker-arm"], answer["kingmaker-reason"]) == (200, "old", "DEFAULT")
    assert claims_of(answer).propensity_bp == 10_000


@pytest.mark.parametrize(
    ("source", "sent"),
    [
        (BY_USER, request(X_User_Id="u1")),
        (UnitSource(kind=UnitKind.COOKIE, name="uid"), request(Cookie="a=b; uid=u1; c=d")),
        (UnitSource(kind=UnitKind.QUERY, name="uid"), request(path="/r/bid?a=b&uid=u%31")),
        (
            UnitSource(kind=UnitKind.JSON, name="/user/ids/0"),
            request("POST", body=b'{"user": {"ids": ["u1"]}}'),
        ),
    ],
)
async def test_the_unit_is_found_wherever_it_is(stage: Stage, source: UnitSource, sent: bytes) -> None:
    """The same unit has the same hash, whether in a header, a cookie, the query or the body."""
    route: Route = stage.route(unit=source)
    claims = claims_of(await stage.send(sent))
    reference = decisions.assign(route, "u1", 0)
    assert (claims.unit_hash, claims.has_unit) == (reference.unit_hash, True)


@pytest.mark.parametrize("body", [b"not json", b"{}", b'{"user": true}', b'{"user": ""}', b"[" * 100_000])
async def test_an_unreadable_unit_is_counted(stage: Stage, body: bytes) -> None:
    """A request without its declared unit is its own unit."""
    stage.route(unit=UnitSource(kind=UnitKind.JSON, name="/user"))
    answer = await stage.ask("POST", body=body)
    assert answer.status == 200
    assert claims_of(answer).has_unit is False
    assert stage.counted("kingmaker_missing_units_total") == 1


async def test_link_local_addresses_are_never_called(stage: Stage) -> None:
    """An arm whose address is a cloud's metadata service is unreachable."""
    arm = Arm(id=1, name="old", url="http://169.254.169.254/", role=Role.CHAMPION)
    stage.route(0, arms=(arm,))
    assert (await stage.ask()).status == 502
