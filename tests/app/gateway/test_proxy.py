"""Claims about one exchange: who answers, what both sides see, what is written down."""

from __future__ import annotations

import asyncio

import pytest

from routing.features import Source, SourceKind
from routing.types import Match, Reason, Upstream
from tests.app.gateway.stage import (
    OK,
    ArmServer,
    Message,
    Stage,
    claims_of,
    close_at_once,
    limits,
    read_message,
    request,
    say_nothing,
    until,
)

BY_USER = Source(kind=SourceKind.HEADER, name="X-User-Id")


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


async def test_a_caller_that_waited_in_vain_was_failed_by_the_arm(stage: Stage) -> None:
    """The attempt is abandoned and its connection closed. A challenger that hangs for longer than its callers
    wait must show in its errors; callers that leave anyway leave both arms alike."""
    stage.route(0)
    stage.champion.script = say_nothing
    _, writer = await stage.connect()
    writer.write(request())
    await until(lambda: len(stage.champion.seen) == 1)
    writer.close()
    await until(lambda: len(stage.spool.events) == 1)
    await until(lambda: not stage.champion.open)
    (event,) = stage.spool.events
    assert (event.status, event.error, event.served_arm_id) == (499, True, None)


async def test_a_caller_that_leaves_in_the_middle_was_served(stage: Stage) -> None:
    """Who has read some of an answer and leaves has not been failed by the arm, whose next word tells."""
    stage.route(0)

    async def go_on(_: Message, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\nhalf")
        while True:
            await asyncio.sleep(0.01)
            writer.write(b"more")
            await writer.drain()

    stage.champion.script = go_on
    reader, writer = await stage.connect()
    writer.write(request())
    await reader.readuntil(b"half")
    writer.close()
    await until(lambda: len(stage.spool.events) == 1)
    await until(lambda: not stage.champion.open)
    (event,) = stage.spool.events
    assert (event.status, event.error, event.served_arm_id) == (200, None, 1)


@pytest.mark.parametrize("pause", [0.5, 1.2])
async def test_a_slow_upload_leaves_the_champion_its_time(stage: Stage, pause: float) -> None:
    """However long the caller took, a challenger that hangs then has its half of the time, and the champion
    the rest."""
    stage.route(10_000, upstream=Upstream(timeout_ms=800))
    stage.challenger.script = say_nothing
    reader, writer = await stage.connect()
    writer.write(request("POST", body=b"all of it")[:-4])
    await asyncio.sleep(pause)
    writer.write(b"f it")
    answer = await asyncio.wait_for(read_message(reader), 10)
    writer.close()
    assert (answer.status, answer["kingmaker-arm"]) == (200, "old")
    assert stage.champion.seen[0].body == b"all of it"


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


async def test_failed_assignment_is_the_champions(stage: Stage) -> None:
    """Any fault in assignment ends in the champion, with reason DEFAULT and certainty."""
    vars(stage.route(10_000))["choices"] = []  # buckets lead nowhere: IndexError
    answer = await stage.ask()
    assert (answer.status, answer["kingmaker-arm"], answer["kingmaker-reason"]) == (200, "old", "DEFAULT")
    assert claims_of(answer).propensity_bp == 10_000


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
    assert (answer.status, answer.body, len(stage.champion.seen)) == (200, b"ok", 1)
    assert stage.challenger.connections == 1
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
    stage.route(10_000, upstream=limits(timeout_ms=1_000))
    stage.challenger.script = say_nothing
    answer = await stage.ask()
    (event,) = stage.spool.events
    assert (answer.status, answer["kingmaker-reason"]) == (200, "FALLBACK")
    assert event.error is True
    assert event.latency_ms is not None
    assert event.latency_ms >= 500


async def test_the_deadline_is_for_both_arms(stage: Stage) -> None:
    """When challenger and champion say nothing, the caller hears so when the route's time is over."""
    stage.route(10_000, upstream=limits(timeout_ms=1_000))
    stage.challenger.script = stage.champion.script = say_nothing
    began = stage.loop.time()
    answer = await stage.ask()
    took = stage.loop.time() - began
    assert (answer.status, answer["kingmaker-assigned-arm"]) == (504, "new")
    assert 0.95 <= took < 1.9
    assert (len(stage.challenger.seen), len(stage.champion.seen)) == (1, 1)


@pytest.mark.parametrize("status", [500, 502, 504, 507, 599])
async def test_any_5xx_of_a_challenger_is_replaced(stage: Stage, status: int) -> None:
    """Whatever follows the 5, the champion answers."""
    stage.route(10_000)
    stage.challenger.script = ArmServer.say(b"HTTP/1.1 %d No\r\nContent-Length: 0\r\n\r\n" % status)
    answer = await stage.ask()
    assert (answer.status, answer["kingmaker-arm"]) == (200, "old")


@pytest.mark.parametrize("status", [302, 400, 404, 429, 499])
async def test_other_answers_of_a_challenger_pass(stage: Stage, status: int) -> None:
    """What is no 5xx is the challenger's answer, and no error of it."""
    stage.route(10_000)
    stage.challenger.script = ArmServer.say(b"HTTP/1.1 %d So\r\nContent-Length: 2\r\n\r\nso" % status)
    answer = await stage.ask()
    (event,) = stage.spool.events
    assert (answer.status, answer.body, answer["kingmaker-arm"]) == (status, b"so", "new")
    assert answer["kingmaker-assigned-arm"] is None
    assert (event.served_arm_id, event.status, event.error) == (2, status, False)
    assert stage.champion.seen == []


async def test_a_fallback_is_measured_on_the_assigned_arm(stage: Stage) -> None:
    """The event has the challenger's error and time; status and serving arm are what the caller saw."""
    stage.route(10_000)
    stage.challenger.script = FAULTS["5xx"]

    async def late(_: Message, writer: asyncio.StreamWriter) -> None:
        await asyncio.sleep(1)
        writer.write(OK)

    stage.champion.script = late
    answer = await stage.ask()
    (event,) = stage.spool.events
    assert (answer.status, event.status, event.served_arm_id, event.error) == (200, 200, 1, True)
    assert event.latency_ms is not None
    assert event.latency_ms < 1_000
    assert stage.counted("kingmaker_fallbacks_total") == 1


async def test_the_champion_falls_back_on_nobody(stage: Stage) -> None:
    """When it fails in the challenger's place, too, its answer is the caller's; nobody is asked twice."""
    stage.route(10_000)
    stage.challenger.script = FAULTS["closed"]
    stage.champion.script = FAULTS["5xx"]
    answer = await stage.ask("POST", body=b"x")
    assert (answer.status, answer.body, answer["kingmaker-reason"]) == (503, b"bad", "FALLBACK")
    assert (len(stage.challenger.seen), len(stage.champion.seen)) == (1, 1)


async def test_a_chunked_body_reaches_the_second_arm_whole(stage: Stage) -> None:
    """What the challenger was sent is kept; the champion gets it, and what comes after it."""
    stage.route(10_000)
    stage.challenger.eager = FAULTS["5xx"]
    reader, writer = await stage.connect()
    writer.write(b"POST /r/bid HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nfirst\r\n")
    await until(lambda: stage.champion.connections == 1)
    writer.write(b"6\r\nsecond\r\n0\r\n\r\n")
    answer = await asyncio.wait_for(read_message(reader), 10)
    assert (answer.status, answer["kingmaker-reason"]) == (200, "FALLBACK")
    (seen,) = stage.champion.seen
    assert (seen.body, seen["transfer-encoding"]) == (b"firstsecond", "chunked")
    writer.close()


async def test_without_fallback_the_fault_is_the_callers(stage: Stage) -> None:
    """Where fallback is off the challenger's own answer passes."""
    stage.route(10_000, upstream=limits(fallback=False))
    stage.challenger.script = FAULTS["5xx"]
    answer = await stage.ask()
    assert (answer.status, answer.body) == (503, b"bad")


async def test_the_champions_own_failure_passes(stage: Stage) -> None:
    """Its 5xx reaches the caller as it is, marked as an error of the champion."""
    stage.route(0)
    stage.champion.script = ArmServer.say(b"HTTP/1.1 500 Own\r\nX-Own: 1\r\nContent-Length: 3\r\n\r\nbad")
    answer = await stage.ask()
    (event,) = stage.spool.events
    assert (answer.line, answer["x-own"], answer.body) == ("HTTP/1.1 500 Own", "1", b"bad")
    assert (answer["kingmaker-arm"], answer["kingmaker-assigned-arm"]) == ("old", None)
    assert (event.served_arm_id, event.status, event.error) == (1, 500, True)


@pytest.mark.parametrize(
    ("fault", "status"), [("closed", 502), ("garbage", 502), ("silent", 504), ("gone", 503)]
)
async def test_nobody_can_answer(stage: Stage, fault: str, status: int) -> None:
    """A champion that fails leaves a problem document that names the decision, with 503 when to return."""
    stage.route(0, upstream=limits(timeout_ms=200) if fault == "silent" else limits())
    stage.champion.script = FAULTS.get(fault, say_nothing)
    if fault == "gone":
        await stage.champion.stop()
    answer = await stage.ask("POST", body=b"x")
    (event,) = stage.spool.events
    assert (answer.status, answer["content-type"]) == (status, "application/problem+json")
    assert answer["retry-after"] == ("1" if status == 503 else None)
    assert event.decision == claims_of(answer)
    assert (event.served_arm_id, event.status, event.error) == (None, status, True)


async def test_a_large_body_has_no_second_chance(stage: Stage) -> None:
    """A body beyond what is kept is not sent again: the challenger's failure is the caller's."""
    stage.route(10_000)
    stage.challenger.script = FAULTS["5xx"]
    answer = await stage.ask("POST", body=b"x" * (2 * 1024 * 1024))
    assert answer.status == 503
    assert stage.champion.seen == []
