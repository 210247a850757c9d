"""Claims about asking again and waiting: what time is left, whose fault it is, which pool is asked."""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from app.gateway.health import Condition
from routing.features import Source, SourceKind
from routing.types import Arm, Ejection, Role
from tests.app.gateway.stage import (
    OK,
    ArmServer,
    Message,
    Script,
    Stage,
    limits,
    read_message,
    request,
    say_nothing,
    until,
)
from tests.app.gateway.test_asking import in_flight, scripts, slow

GARBAGE = b"garbage\r\n\r\n"
IN_BODY = Source(kind=SourceKind.JSON, name="/u")
UPLOAD = 900_000
_RESET = struct.pack("ii", 1, 0)


def holding(hold: asyncio.Event) -> Script:
    """Answers a body that says `hold` once it may, and everything else at once."""

    async def script(seen: Message, writer: asyncio.StreamWriter) -> None:
        if seen.body == b"hold":
            await hold.wait()
        writer.write(OK)

    return script


@asynccontextmanager
async def another_arm() -> AsyncIterator[ArmServer]:
    """An arm that no route names yet."""
    arm = ArmServer()
    await arm.start()
    try:
        yield arm
    finally:
        await arm.stop()


def moved(stage: Stage, port: int) -> tuple[Arm, Arm]:
    """The arms, with the champion at another port."""
    url = f"http://127.0.0.1:{port}/score"
    return Arm(id=1, name="old", url=url, role=Role.CHAMPION), stage.arms()[1]


async def test_a_caller_in_a_hurry_ejects_nobody(stage: Stage) -> None:
    """What does not come in a time that is the caller's own proves nothing about the arm."""
    rules = Ejection(consecutive_failures=3, base_ms=600_000, longest_ms=600_000)
    stage.route(10_000, upstream=limits(ejection=rules))
    stage.challenger.script = say_nothing
    for _ in range(5):
        answer = await stage.ask(Kingmaker_Timeout_Ms="300")
        assert (answer.status, answer["kingmaker-arm"]) == (200, "old")
    assert stage.worker.fleet.of(2).condition(stage.loop.time()) is Condition.WELL
    assert (len(stage.challenger.seen), stage.counted("kingmaker_ejections_total")) == (5, 0)
    assert in_flight(stage) == {0}


async def test_the_routes_own_time_ejects(stage: Stage) -> None:
    """As does a caller's that is longer: it does not count, then."""
    rules = Ejection(consecutive_failures=3, base_ms=600_000, longest_ms=600_000)
    stage.route(10_000, upstream=limits(ejection=rules, timeout_ms=300))
    stage.challenger.script = say_nothing
    for _ in range(4):
        await stage.ask(Kingmaker_Timeout_Ms="20000")
    assert stage.worker.fleet.of(2).condition(stage.loop.time()) is Condition.EJECTED
    assert stage.counted("kingmaker_ejections_total") == 1


async def test_an_arm_is_told_what_is_left_after_a_wait(stage: Stage) -> None:
    """Its time is what is left when it gets the request, not what there was when the request came."""
    stage.route(0, upstream=limits(max_connections=1))
    hold = asyncio.Event()
    stage.champion.script = holding(hold)
    first = asyncio.create_task(stage.ask("POST", body=b"hold"))
    await until(lambda: len(stage.champion.seen) == 1)
    second = asyncio.create_task(stage.ask())
    await until(lambda: len(stage.worker._pools[1].waiting) == 1)
    await asyncio.sleep(0.5)
    hold.set()
    assert [answer.status for answer in await asyncio.gather(first, second)] == [200, 200]
    told = int(stage.champion.seen[1]["kingmaker-timeout-ms"] or "0")
    assert 1 <= told <= 19_500


async def test_patience_follows_the_timeout(stage: Stage) -> None:
    """A route whose timeout has changed has other waits; one that is merely published again has the same."""
    stage.route(0, upstream=limits(timeout_ms=2_000))
    await stage.ask()
    pool = stage.worker._pools[1]
    before = pool.patience
    stage.route(0, upstream=limits(timeout_ms=2_000))
    assert (stage.worker._pools[1], pool.patience) == (pool, before)
    stage.route(0, upstream=limits(timeout_ms=400))
    await stage.ask()
    assert stage.worker._pools[1] is pool
    assert pool.patience.until(100.0) == 100.2
    assert stage.champion.connections == 1


async def test_connects_are_counted_once_over_snapshots(stage: Stage) -> None:
    """Whether the figures were looked at before the next snapshot or not."""
    stage.champion.script = ArmServer.say(OK, close=True)
    for count in range(4):
        stage.route(0)
        for _ in range(3):
            assert (await stage.ask("POST", body=b"x")).status == 200
        if count % 2:
            await until(lambda: stage.counted("kingmaker_upstream_connects_total") > 0)
    for _ in range(50):
        stage.worker.tick()
    made = stage.counted("kingmaker_upstream_connects_total")
    assert made == stage.champion.connections == 12


async def test_a_late_exchange_leaves_the_new_pool_alone(stage: Stage) -> None:
    """It began before the arm moved, and is asked where the arm was; the others keep their connection."""
    stage.route(0, unit=IN_BODY)
    reader, writer = await stage.connect()
    writer.write(request("POST", Content_Length="1"))
    await until(lambda: any(known._current is not None for known in stage.worker._connections))
    async with another_arm() as arm:
        stage.route(0, unit=IN_BODY, arms=moved(stage, arm.port))
        for _ in range(3):
            assert (await stage.ask()).status == 200
        pool = stage.worker._pools[1]
        writer.write(b"x")
        assert (await asyncio.wait_for(read_message(reader), 10)).status == 200
        assert len(stage.champion.seen) == 1
        for _ in range(3):
            assert (await stage.ask()).status == 200
        assert (stage.worker._pools[1], pool.retired) == (pool, False)
        assert (len(arm.seen), arm.connections) == (6, 1)
        await until(lambda: not stage.champion.open)


async def test_nothing_is_sent_beside_what_still_waits(stage: Stage) -> None:
    """A request for which no connection is free yet is not waiting for an answer: one is sent, not two."""
    stage.route(0, upstream=limits(max_connections=2, hedge_ms=50, retry_percent=100))
    hold = asyncio.Event()
    stage.champion.script = holding(hold)
    held = [asyncio.create_task(stage.ask("POST", body=b"hold")) for _ in range(2)]
    await until(lambda: len(stage.champion.seen) == 2)
    waiting = asyncio.create_task(stage.ask("PUT", body=b"once"))
    pool = stage.worker._pools[1]
    await until(lambda: len(pool.waiting) == 1)
    await asyncio.sleep(0.3)
    assert len(pool.waiting) == 1
    hold.set()
    assert {answer.status for answer in await asyncio.gather(waiting, *held)} == {200}
    assert [seen.body for seen in stage.champion.seen].count(b"once") == 1
    assert stage.counted("kingmaker_retries_total") == 0
    assert in_flight(stage) == {0}


@pytest.mark.parametrize("failing", ["first", "beside"])
async def test_a_malformed_answer_does_not_end_the_other_one(stage: Stage, failing: str) -> None:
    """Of two that were asked, the one that makes sense is the caller's."""
    stage.route(0, upstream=limits(hedge_ms=50))
    bad, good = slow(0.2, GARBAGE), slow(0.6)
    stage.champion.script = scripts(*((bad, good) if failing == "first" else (good, bad)), say_nothing)
    answer = await stage.ask()
    assert (answer.status, answer.body, len(stage.champion.seen)) == (200, b"ok", 2)
    assert [event.error for event in stage.spool.events] == [False]
    assert stage.counted("kingmaker_upstream_errors_total") == 0
    assert in_flight(stage) == {0}


async def test_two_malformed_answers_are_one_failure(stage: Stage) -> None:
    """The caller is told once both are known."""
    stage.route(0, upstream=limits(hedge_ms=50))
    stage.champion.script = scripts(slow(0.2, GARBAGE), slow(0.3, GARBAGE), say_nothing)
    assert (await stage.ask()).status == 502
    assert [event.error for event in stage.spool.events] == [True]
    assert stage.counted("kingmaker_upstream_errors_total") == 1
    assert in_flight(stage) == {0}


def narrow_listener() -> socket.socket:
    """An arm that takes little of what it is sent until it reads."""
    listener = socket.create_server(("127.0.0.1", 0))
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG, 600)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
    listener.setblocking(False)
    return listener


async def take_upload(loop: asyncio.AbstractEventLoop, connection: socket.socket) -> bytes:
    """Reads all of the upload, and answers; what came of it."""
    got = b""
    while len(got.partition(b"\r\n\r\n")[2]) < UPLOAD and (data := await loop.sock_recv(connection, 2**20)):
        got += data
    await loop.sock_sendall(connection, OK)
    return got


async def test_a_repeat_after_a_stuck_upload_goes_on(stage: Stage) -> None:
    """That the connection which died took no more does not hold the caller back for the next one."""
    with narrow_listener() as listener:
        arms = moved(stage, listener.getsockname()[1])
        stage.route(0, arms=arms, upstream=limits(retry_percent=100))
        reader, writer = await stage.connect()
        writer.write(request("PUT", Content_Length=str(UPLOAD)) + b"a" * 500_000)
        stuck, _ = await asyncio.wait_for(stage.loop.sock_accept(listener), 10)
        (caller,) = stage.worker._connections
        await until(lambda: caller._arm_full)
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG, 32_767)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 * 2**20)
        stuck.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        stuck.close()
        second, _ = await asyncio.wait_for(stage.loop.sock_accept(listener), 10)
        with second:
            taking = asyncio.create_task(take_upload(stage.loop, second))
            writer.write(b"a" * (UPLOAD - 500_000))
            assert (await asyncio.wait_for(read_message(reader), 15)).status == 200
            body = (await taking).partition(b"\r\n\r\n")[2]
            assert body == b"a" * UPLOAD
