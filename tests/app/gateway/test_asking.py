"""Claims about how one arm is asked: over kept connections, again where that is safe, and beside itself."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from app.gateway.budget import FLOOR
from tests.app.gateway.stage import (
    OK,
    ArmServer,
    Message,
    Script,
    Stage,
    close_at_once,
    limits,
    read_message,
    request,
    say_nothing,
    until,
)


def scripts(*answers: Script) -> Script:
    """One script for each request, in order of arrival; the last one for all that come later."""
    waiting = list(answers)

    async def script(seen: Message, writer: asyncio.StreamWriter) -> None:
        await (waiting.pop(0) if len(waiting) > 1 else waiting[0])(seen, writer)

    return script


def slow(seconds: float, answer: bytes = OK) -> Script:
    """Answers after a while."""

    async def script(_: Message, writer: asyncio.StreamWriter) -> None:
        await asyncio.sleep(seconds)
        writer.write(answer)

    return script


def hedged(stage: Stage, hedge_ms: int = 50, **changes: Any) -> None:
    """Routes to the champion, and once more beside it after so long."""
    stage.route(0, upstream=limits(**{"hedge_ms": hedge_ms, **changes}))


def in_flight(stage: Stage) -> set[int]:
    """How many requests each arm has, as the figures say."""
    return {lane.series.in_flight for lane in stage.worker._lanes.values()}


@pytest.mark.parametrize(
    ("method", "status"), [("GET", 200), ("PUT", 200), ("DELETE", 200), ("POST", 502), ("PATCH", 502)]
)
async def test_a_kept_connection_may_have_died(stage: Stage, method: str, status: int) -> None:
    """What may be repeated is sent once more on a new connection; what may have been executed is not."""
    stage.route(0, upstream=limits(retry_percent=0))
    assert (await stage.ask()).status == 200
    stage.champion.script = scripts(close_at_once, ArmServer.say(OK))
    answer = await stage.ask(method, body=b"x")
    assert answer.status == status
    assert (len(stage.champion.seen), stage.champion.connections) == ((3, 2) if status == 200 else (2, 1))
    assert [seen.body for seen in stage.champion.seen[1:]] == [b"x"] * (len(stage.champion.seen) - 1)
    assert in_flight(stage) == {0}


async def test_a_restarted_arm_costs_no_caller_of_get_anything(stage: Stage) -> None:
    """Of many kept connections that died at once, each caller meets one at most."""
    stage.route(0, upstream=limits(retry_percent=0))
    stage.champion.script = slow(0.1)
    await asyncio.gather(*(stage.ask() for _ in range(10)))
    assert stage.champion.connections == 10
    stage.champion.script = ArmServer.say(OK)
    for writer in list(stage.champion.open):
        writer.transport.abort()
    answers = await asyncio.gather(*(stage.ask() for _ in range(10)))
    assert {answer.status for answer in answers} == {200}


async def test_an_arm_that_always_hangs_up_is_asked_three_times_at_most(stage: Stage) -> None:
    """Once over a kept connection, once over a new one, and once more of the budget."""
    stage.route(0)
    await stage.ask()
    stage.champion.script = close_at_once
    assert (await stage.ask()).status == 502
    assert len(stage.champion.seen) == 4
    assert stage.counted("kingmaker_retries_total") == 1


@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_an_unreachable_arm_is_tried_twice(stage: Stage, method: str) -> None:
    """Whatever the method: nothing can have been executed."""
    stage.route(0)
    port = stage.champion.port
    await stage.champion.stop()
    answer = await stage.ask(method, body=b"x")
    assert (answer.status, answer["retry-after"]) == (503, "1")
    assert stage.worker._pools[1].refusals == 2
    stage.champion.port = port
    await stage.champion.start()


@pytest.mark.parametrize(("method", "asked"), [("GET", 2), ("POST", 1)])
async def test_a_cut_off_answer_is_asked_for_again_where_that_is_safe(
    stage: Stage, method: str, asked: int
) -> None:
    """On a new connection, once, and within the budget."""
    stage.route(0)
    stage.champion.script = scripts(close_at_once, ArmServer.say(OK))
    answer = await stage.ask(method, body=b"x")
    assert (answer.status, len(stage.champion.seen)) == (200 if asked == 2 else 502, asked)


@pytest.mark.parametrize(
    "answer", [b"HTTP/1.1 500 No\r\nContent-Length: 0\r\n\r\n", b"garbage\r\n\r\n", b"HTTP/1.1 200 OK\r\n"]
)
async def test_an_arm_that_has_begun_to_answer_is_not_asked_again(stage: Stage, answer: bytes) -> None:
    """Its failure is an answer, however bad."""
    stage.route(0)
    stage.champion.script = ArmServer.say(answer, close=True)
    assert (await stage.ask()).status in (500, 502)
    assert len(stage.champion.seen) == 1


async def test_retries_have_a_budget(stage: Stage) -> None:
    """A dead arm is not asked twice by everybody: a tenth of the requests, and a few, may be."""
    stage.route(0, upstream=limits(retry_percent=10))
    stage.champion.script = close_at_once
    for _ in range(30):
        assert (await stage.ask()).status == 502
    extra = len(stage.champion.seen) - 30
    assert 1 <= extra <= FLOOR + 3
    assert stage.counted("kingmaker_retries_total") == extra


async def test_without_a_budget_nothing_is_asked_again(stage: Stage) -> None:
    """But what failed on a kept connection: that is no failure of the arm."""
    stage.route(0, upstream=limits(retry_percent=0, hedge_ms=10))
    stage.champion.script = scripts(close_at_once, slow(0.3))
    assert (await stage.ask()).status == 502
    assert (await stage.ask()).status == 200
    assert len(stage.champion.seen) == 2


async def test_a_challenger_is_not_asked_twice(stage: Stage) -> None:
    """The champion is the second try."""
    stage.route(10_000)
    stage.challenger.script = close_at_once
    answer = await stage.ask()
    assert (answer.status, answer["kingmaker-reason"]) == (200, "FALLBACK")
    assert (len(stage.challenger.seen), len(stage.champion.seen)) == (1, 1)


async def test_a_request_is_sent_beside_itself(stage: Stage) -> None:
    """After the time for it, on a second connection; that answers first, and the first one is given up."""
    hedged(stage)
    stage.champion.script = scripts(say_nothing, ArmServer.say(OK))
    answer = await stage.ask("PUT", body=b"x")
    assert (answer.status, [seen.body for seen in stage.champion.seen]) == (200, [b"x", b"x"])
    tokens = {seen["kingmaker-decision"] for seen in stage.champion.seen}
    assert tokens == {answer["kingmaker-decision"]}
    await until(lambda: len(stage.champion.open) == 1)
    assert [event.error for event in stage.spool.events] == [False]
    assert in_flight(stage) == {0}
    assert (await stage.ask()).status == 200
    assert stage.champion.connections == 2


async def test_whoever_answers_first_counts(stage: Stage) -> None:
    """Also the first one, which is slow but quicker than the one beside it."""
    hedged(stage)
    stage.champion.script = scripts(slow(0.3, OK.replace(b"ok", b"1.")), say_nothing)
    answer = await stage.ask()
    assert (answer.body, len(stage.champion.seen)) == (b"1.", 2)
    await until(lambda: len(stage.champion.open) == 1)
    assert in_flight(stage) == {0}


async def test_an_answer_in_time_is_not_hedged(stage: Stage) -> None:
    """One request is one request; nor is one hedged that must not be repeated, or is not all there."""
    hedged(stage, 300)
    for method in ("GET", "POST"):
        assert (await stage.ask(method, body=b"x")).status == 200
    stage.champion.script = slow(0.5)
    assert (await stage.ask("POST", body=b"x")).status == 200
    reader, writer = await stage.connect()
    writer.write(request("PUT", body=b"late")[:-4])
    await asyncio.sleep(0.4)
    writer.write(b"late")
    assert (await asyncio.wait_for(read_message(reader), 10)).status == 200
    assert len(stage.champion.seen) == 4
    assert stage.counted("kingmaker_retries_total") == 0


@pytest.mark.parametrize("failing", [0, 1])
async def test_one_of_two_may_fail(stage: Stage, failing: int) -> None:
    """The other one's answer is the caller's, and the arm has not failed."""
    hedged(stage)

    async def die(_: Message, writer: asyncio.StreamWriter) -> None:
        await asyncio.sleep(0.15)
        writer.close()

    both = [slow(0.5), die] if failing else [die, slow(0.5)]
    stage.champion.script = scripts(*both, say_nothing)
    answer = await stage.ask()
    assert (answer.status, len(stage.champion.seen)) == (200, 2)
    assert [event.error for event in stage.spool.events] == [False]
    assert in_flight(stage) == {0}


@pytest.mark.parametrize("script", [say_nothing, close_at_once], ids=["silent", "closed"])
async def test_when_both_fail_the_arm_has_failed_once(stage: Stage, script: Script) -> None:
    """One answer, one event, one failure in the figures."""
    hedged(stage, timeout_ms=400)

    async def later(seen: Message, writer: asyncio.StreamWriter) -> None:
        await asyncio.sleep(0.15)
        await script(seen, writer)

    stage.champion.script = later
    reader, writer = await stage.connect()
    writer.write(request())
    answer = await asyncio.wait_for(read_message(reader), 10)
    assert answer.status in (502, 504)
    await asyncio.sleep(0.3)
    writer.write(request(path="/healthz"))
    assert (await asyncio.wait_for(read_message(reader), 10)).status == 200
    assert [event.error for event in stage.spool.events] == [True]
    assert stage.counted("kingmaker_upstream_errors_total") == 1
    assert in_flight(stage) == {0}


async def test_the_one_beside_has_a_deadline_when_the_first_is_gone(stage: Stage) -> None:
    """It begins to answer and stops: the caller is not left waiting for ever."""
    hedged(stage, timeout_ms=1_000)

    async def die(_: Message, writer: asyncio.StreamWriter) -> None:
        await asyncio.sleep(0.15)
        writer.close()

    async def begin(_: Message, writer: asyncio.StreamWriter) -> None:
        await asyncio.sleep(0.4)
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf")

    stage.champion.script = scripts(die, begin, say_nothing)
    reader, writer = await stage.connect()
    writer.write(request())
    await asyncio.wait_for(reader.readuntil(b"half"), 10)
    with pytest.raises((asyncio.IncompleteReadError, ConnectionError)):
        await asyncio.wait_for(reader.readexactly(1), 5)
    assert [event.error for event in stage.spool.events] == [True]


async def test_a_caller_that_leaves_ends_both(stage: Stage) -> None:
    """Neither connection is kept waiting."""
    hedged(stage)
    stage.champion.script = say_nothing
    _, writer = await stage.connect()
    writer.write(request())
    await until(lambda: len(stage.champion.seen) == 2)
    writer.close()
    await until(lambda: not stage.champion.open)
    assert in_flight(stage) == {0}


async def test_hedges_take_of_the_budget(stage: Stage) -> None:
    """An arm that has become slow is not asked twice as much."""
    hedged(stage, 1)
    stage.champion.script = slow(0.02)
    for _ in range(20):
        assert (await stage.ask()).status == 200
    assert len(stage.champion.seen) <= 20 + FLOOR + 2


async def test_extra_bytes_spoil_a_connection(stage: Stage) -> None:
    """After the end of an answer, with it or later: it is never used again."""
    stage.route(0)
    stage.champion.script = ArmServer.say(OK + b"HTTP/1.1 200 OK\r\n\r\n")
    assert (await stage.ask()).status == 502
    stage.champion.script = ArmServer.say(OK)
    assert (await stage.ask()).status == 200
    (writer,) = stage.champion.open
    writer.write(b"unasked")
    await until(lambda: not stage.champion.open)
    assert (await stage.ask()).status == 200
    assert stage.champion.connections == 3


async def test_nobody_gets_the_answer_to_another_request(stage: Stage) -> None:
    """Whatever arms leave behind: a hundred callers at once, a third of whom leave, each get their own."""
    stage.route(0, upstream=limits(max_connections=5, hedge_ms=5, retry_percent=100))

    async def script(seen: Message, writer: asyncio.StreamWriter) -> None:
        number = seen["x-number"] or ""
        await asyncio.sleep(int(number) % 7 / 500)
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(number), number.encode()))

    stage.champion.script = script

    async def ask(number: int) -> None:
        if number % 3 == 0:
            _, writer = await stage.connect()
            writer.write(request(X_Number=str(number)))
            await asyncio.sleep(number % 5 / 500)
            writer.transport.abort()
        else:
            assert (await stage.ask(X_Number=str(number))).body == str(number).encode()

    await asyncio.gather(*map(ask, range(100)))
    await until(lambda: in_flight(stage) == {0})
