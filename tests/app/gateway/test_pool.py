"""Claims about connections to arms: kept, bounded, replaced, and never used for the wrong answer."""

from __future__ import annotations

import asyncio
import math
import os
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import ExitStack
from typing import cast

import pytest

from app.gateway import pool as pools
from app.gateway.pool import Pool
from app.gateway.targets import Target
from app.gateway.upstream import Attempt, CalledAttempt, Failure, UpstreamConnection
from routing.features import Source, SourceKind
from routing.types import Arm, Role
from tests.app.gateway.reach import Call, Listener, call, pool_at
from tests.app.gateway.stage import (
    OK,
    ArmServer,
    Message,
    Stage,
    limits,
    read_message,
    request,
    say_nothing,
    until,
)

HEAD_OK = b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n"


def pool_of(stage: Stage, arm_id: int = 1) -> Pool:
    """The worker's connections to an arm."""
    return stage.worker._pools[arm_id]


def narrow(connection: UpstreamConnection) -> None:
    """Lets the system take little of what is sent on a connection."""
    number = connection._transport.get_extra_info("socket").fileno()
    with socket.socket(fileno=os.dup(number)) as twin:
        twin.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)


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
    assert [seen.line for seen in stage.champion.seen] == ["GET /score HTTP/1.1"] * 3
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
    assert {answer.status for answer in answers} == {502}
    assert all(b"secret" not in answer.body for answer in answers)
    assert stage.champion.connections == 3


async def test_link_local_addresses_are_never_called(stage: Stage) -> None:
    """An arm whose address is a cloud's metadata service is unreachable."""
    arm = Arm(id=1, name="old", url="http://169.254.169.254/", role=Role.CHAMPION)
    stage.route(0, arms=(arm,))
    assert (await stage.ask()).status == 503


async def test_a_full_pool_is_said(stage: Stage) -> None:
    """Callers for whom no connection is free before the deadline are asked to come back."""
    stage.route(0, upstream=limits(timeout_ms=300, max_connections=1))
    _, writer = await stage.connect()
    writer.write(b"POST /r/bid HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\n")
    await until(lambda: stage.champion.connections == 1)
    answers = await asyncio.gather(*(stage.ask() for _ in range(3)))
    assert [answer.status for answer in answers] == [503] * 3
    assert {answer["retry-after"] for answer in answers} == {"1"}
    writer.close()


async def test_a_queue_moves_on(stage: Stage) -> None:
    """More callers than connections are all answered, over no more connections than allowed."""
    stage.route(0, upstream=limits(max_connections=2))
    answers = await asyncio.gather(*(stage.ask() for _ in range(20)))
    assert {answer.status for answer in answers} == {200}
    assert stage.champion.connections <= 2


@pytest.mark.parametrize(
    ("method", "times"),
    [("GET", 2), ("HEAD", 2), ("OPTIONS", 2), ("PUT", 2), ("DELETE", 2), ("POST", 1), ("PATCH", 1)],
)
async def test_only_idempotent_requests_are_sent_twice(stage: Stage, method: str, times: int) -> None:
    """A request lost on a kept connection may have been executed: only an idempotent one is repeated."""
    stage.route(0)
    await stage.ask()
    stage.champion.seen.clear()

    async def lose_first(_: Message, writer: asyncio.StreamWriter) -> None:
        if len(stage.champion.seen) == 1:
            writer.close()
        else:
            writer.write(b"HTTP/1.1 204 No Content\r\n\r\n")

    stage.champion.script = lose_first
    answer = await stage.send(request(method, body=b"x"))
    assert answer.status == {1: 502, 2: 204}[times]
    assert [seen.body for seen in stage.champion.seen] == [b"x"] * times


async def test_a_lost_answer_is_not_asked_for_again(stage: Stage) -> None:
    """Once an arm has begun to answer, even a GET is not repeated, on a new connection or a kept one."""
    stage.route(0)
    for count in (1, 3):
        stage.champion.script = ArmServer.say(b"HTTP/1.1 200", close=True)
        assert (await stage.ask()).status == 502
        assert len(stage.champion.seen) == count
        stage.champion.script = ArmServer.say(OK)
        await stage.ask()


async def test_the_connection_used_last_is_used_next(stage: Stage) -> None:
    """Of several idle connections the freshest serves; the others may grow old and close."""
    stage.route(0)
    go = asyncio.Event()
    stage.champion.script = ArmServer.say(OK, once=go)
    asking = [asyncio.create_task(stage.ask()) for _ in range(3)]
    await until(lambda: len(stage.champion.seen) == 3)
    go.set()
    await asyncio.gather(*asking)
    last = pool_of(stage).idle[-1]
    for _ in range(5):
        await stage.ask()
    assert (last.served, pool_of(stage).open) == (6, 3)


async def test_idle_connections_grow_old(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    """What has been idle for longer than common servers wait is closed, and not used again."""
    stage.route(0)
    await stage.ask()
    monkeypatch.setattr(pools, "IDLE_SECONDS", 0.0)
    await until(lambda: pool_of(stage).open == 0)
    assert (await stage.ask()).status == 200
    assert stage.champion.connections == 2


@pytest.mark.parametrize(
    "head",
    [
        HEAD_OK.replace(b"Content", b"Connection: close\r\nContent"),
        HEAD_OK.replace(b"HTTP/1.1", b"HTTP/1.0"),
    ],
)
async def test_a_head_ends_the_connection_that_the_arm_ends(stage: Stage, head: bytes) -> None:
    """Also where no body follows, what the arm says of its connection is heard."""
    stage.route(0)
    stage.champion.script = ArmServer.say(head)
    for _ in range(2):
        assert (await stage.send(request("HEAD"))).status == 200
    assert stage.champion.connections == 2


async def test_a_head_keeps_the_connection_that_the_arm_keeps(stage: Stage) -> None:
    """The length in an answer to HEAD is not waited for."""
    stage.route(0)
    for head in (HEAD_OK, HEAD_OK.replace(b"HTTP/1.1 200 OK", b"HTTP/1.0 200 OK\r\nConnection: keep-alive")):
        stage.champion.script = ArmServer.say(head)
        assert (await stage.send(request("HEAD")))["content-length"] == "9"
    assert stage.champion.connections == 1


async def test_an_unread_request_ends_its_connection(stage: Stage) -> None:
    """An arm that answers before it has taken the whole request gets the next one on a new connection.

    The request is sent at once, because its unit is looked for in the body.
    """
    await stage.champion.stop()
    stage.champion.receive_bytes = 4096
    await stage.champion.start()
    stage.route(0, unit=Source(kind=SourceKind.JSON, name="/user"))
    go = asyncio.Event()

    async def answer_twice(_: Message, writer: asyncio.StreamWriter) -> None:
        writer.write(OK)
        await go.wait()
        writer.write(OK)
        await asyncio.Event().wait()

    stage.champion.script = answer_twice
    await stage.ask()
    (connection,) = pool_of(stage).idle
    narrow(connection)
    asking = asyncio.create_task(stage.ask("POST", body=b"x" * 900_000))
    await until(lambda: connection._stuck and connection.request_sent)
    go.set()
    assert (await asking).status == 200
    stage.champion.script = ArmServer.say(OK)
    assert (await stage.ask()).status == 200
    assert stage.champion.connections == 2


async def test_a_stuck_challenger_does_not_hold_the_caller(stage: Stage) -> None:
    """When the challenger takes no more of a request, the champion gets all of it."""
    await stage.challenger.stop()
    stage.challenger.receive_bytes = 4096
    await stage.challenger.start()
    stage.route(10_000, upstream=limits(timeout_ms=2_000))

    async def stop_reading(_: Message, writer: asyncio.StreamWriter) -> None:
        writer.write(OK)
        await asyncio.Event().wait()

    stage.challenger.script = stop_reading
    await stage.ask()
    narrow(pool_of(stage, 2).idle[0])
    reader, writer = await stage.connect()
    writer.write(b"POST /r/bid HTTP/1.1\r\nHost: a\r\nContent-Length: 900000\r\n\r\n" + b"x" * 600_000)
    await until(lambda: any(not client.is_reading for client in stage.worker._connections))
    writer.write(b"x" * 300_000)
    answer = await asyncio.wait_for(read_message(reader), 15)
    assert (answer.status, answer["kingmaker-reason"]) == (200, "FALLBACK")
    assert len(stage.champion.seen[0].body) == 900_000
    writer.close()


async def test_a_connection_that_comes_too_late_is_given_up(stage: Stage) -> None:
    """An arm whose system does not take the connection in time is unreachable, long before the deadline."""
    with ExitStack() as sockets:
        full = sockets.enter_context(socket.create_server(("127.0.0.1", 0), backlog=1))
        url = f"http://127.0.0.1:{full.getsockname()[1]}"
        for _ in range(8):
            other = sockets.enter_context(socket.socket())
            other.setblocking(False)
            other.connect_ex(full.getsockname())
        arm = Arm(id=1, name="old", url=url, role=Role.CHAMPION)
        stage.route(0, arms=(arm,), upstream=limits(connect_timeout_ms=100))
        began = stage.loop.time()
        assert (await stage.ask()).status == 503
        assert stage.loop.time() - began >= 0.09


async def test_a_retired_pool_keeps_nothing(stage: Stage) -> None:
    """A connection that comes free after its arm has gone is closed, also when somebody gave up waiting."""
    stage.route(0, upstream=limits(max_connections=1))
    stage.champion.script = say_nothing
    asking = asyncio.create_task(stage.ask())
    await until(lambda: len(stage.champion.seen) == 1)
    pool = pool_of(stage)
    Call(pool).start().attempt.cancel()
    pool.retire()
    (writer,) = stage.champion.open
    writer.write(OK)
    assert (await asking).status == 200
    assert pool.idle == []
    await until(lambda: pool.open == 0)


@pytest.fixture
async def hangs() -> AsyncIterator[Listener]:
    """An arm that takes connections and requests, and does not answer."""
    listener = await Listener().start()
    listener.answer = b""
    yield listener
    await listener.stop()


@pytest.mark.parametrize("most", [0, 1, 3])
async def test_a_queue_is_bounded(hangs: Listener, most: int) -> None:
    """So many wait as may; who comes then is told before the call returns, and those who wait stay."""
    pool = pool_at(f"http://127.0.0.1:{hangs.port}/", max_connections=2, max_waiting=most)
    served = [Call(pool).start() for _ in range(2)]
    await until(lambda: pool.connecting == 0)
    waiting = [Call(pool).start() for _ in range(most)]
    for _ in range(5):
        shed = Call(pool).start()
        assert shed.outcome.result() is Failure.BUSY
        assert shed.attempt.over
    assert [one.outcome.done() for one in served + waiting] == [False] * (2 + most)
    assert len(pool.waiting) == most


async def test_whose_connection_is_being_made_does_not_count_as_waiting(hangs: Listener) -> None:
    """As many as there may be connections come in at once, also where nobody may wait."""
    pool = pool_at(f"http://127.0.0.1:{hangs.port}/", max_connections=4, max_waiting=0)
    calls = [Call(pool).start() for _ in range(6)]
    assert [one.outcome.done() for one in calls] == [False] * 4 + [True] * 2
    await until(lambda: hangs.connections == 4)


async def test_who_has_given_up_does_not_wait(hangs: Listener) -> None:
    """Their places in the queue are free again, wherever they stood."""
    pool = pool_at(f"http://127.0.0.1:{hangs.port}/", max_connections=1, max_waiting=3)
    Call(pool).start()
    await until(lambda: pool.connecting == 0)
    waiting = [Call(pool).start() for _ in range(3)]
    waiting[1].attempt.cancel()
    assert not Call(pool).start().outcome.done()
    assert Call(pool).start().outcome.result() is Failure.BUSY


async def test_in_a_long_queue_places_come_free_after_a_while(hangs: Listener) -> None:
    """Overload does not search all of it each time, but no place stays taken."""
    pool = pool_at(f"http://127.0.0.1:{hangs.port}/", max_connections=1, max_waiting=320)
    Call(pool).start()
    await until(lambda: pool.connecting == 0)
    waiting = [Call(pool).start() for _ in range(320)]
    for one in waiting[1:]:
        one.attempt.cancel()
    outcomes = [Call(pool).start().outcome.done() for _ in range(22)]
    assert outcomes == [True] * 20 + [False] * 2


class Stubborn(Call):
    """A call that is made once more when it is told that the arm is busy."""

    others: Pool

    def on_failure(self, attempt: Attempt, failure: Failure) -> None:
        if attempt.pool is self.others:
            super().on_failure(attempt, failure)
        else:
            again = CalledAttempt(self, self.others.target, self.others, math.inf)
            self.others.acquire(again)


async def test_who_is_shed_may_go_elsewhere_at_once(hangs: Listener) -> None:
    """To another pool, and from there to be shed again: both are as they were."""
    pools = [pool_at(f"http://127.0.0.1:{hangs.port}/", max_connections=1, max_waiting=1) for _ in range(2)]
    for pool in pools:
        Call(pool).start()
        Call(pool).start()
    await until(lambda: not any(pool.connecting for pool in pools))
    one = Stubborn(pools[0])
    one.others = pools[1]
    assert one.start().outcome.result() is Failure.BUSY
    assert [(pool.open, len(pool.waiting)) for pool in pools] == [(1, 1)] * 2


@pytest.fixture
async def answers() -> AsyncIterator[Listener]:
    """An arm that answers."""
    listener = await Listener().start()
    yield listener
    await listener.stop()


async def test_a_connection_that_comes_too_late_is_counted_once(
    answers: Listener, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that is made in the very moment in which it is given up leaves the count as it was."""
    pool = pool_at(f"http://127.0.0.1:{answers.port}/", max_connections=1)
    dial, made = pool._dialer.dial, []

    async def late(target: Target, protocol: Callable[[], asyncio.Protocol]) -> UpstreamConnection:
        made.append(cast(UpstreamConnection, await dial(target, protocol)))
        made[-1].close()
        raise OSError("did not answer in time")

    monkeypatch.setattr(pool._dialer, "dial", late)
    for _ in range(3):
        assert await call(pool) is Failure.UNREACHABLE
        await until(lambda: pool.open == 0)
    assert (len(made), pool.connects, pool.refusals) == (3, 0, 3)
    monkeypatch.undo()
    assert await call(pool) == 200
    assert (pool.open, pool.connects) == (1, 1)
    pool.retire()


async def test_a_connection_that_is_lost_at_once_is_none(
    answers: Listener, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing was sent on it, so the arm was not reached, and no place is taken by it."""
    pool = pool_at(f"http://127.0.0.1:{answers.port}/", max_connections=1)
    dial = pool._dialer.dial

    async def lose(target: Target, protocol: Callable[[], asyncio.Protocol]) -> UpstreamConnection:
        connection = cast(UpstreamConnection, await dial(target, protocol))
        connection.close()
        await asyncio.sleep(0.01)
        return connection

    monkeypatch.setattr(pool._dialer, "dial", lose)
    assert await call(pool) is Failure.UNREACHABLE
    assert (pool.open, pool.connects, pool.refusals) == (0, 0, 1)


async def test_connections_are_counted(answers: Listener) -> None:
    """Those that were made, and those that could not be."""
    pool = pool_at(f"http://127.0.0.1:{answers.port}/")
    assert [await call(pool) for _ in range(3)] == [200] * 3
    assert (pool.connects, pool.refusals, pool.open) == (1, 0, 1)
    await answers.stop()
    await until(lambda: pool.open == 0)
    assert await call(pool) is Failure.UNREACHABLE
    assert (pool.connects, pool.refusals, pool.open) == (1, 1, 0)
    assert repr(pool) == f"<Pool 127.0.0.1:{answers.port} open 0, idle 0, waiting 0>"
