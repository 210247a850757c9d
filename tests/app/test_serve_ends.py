"""Claims about the end of a whole installation: what is under way is finished, and nothing stays behind."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from collections.abc import Callable

import pytest

from tests.app.gateway.stage import ArmServer, Message
from tests.app.product import Caller, Ended, Product, Server, answer_of, converted, counted, route, until


async def _with_a_slow_arm(product: Product) -> tuple[Server, ArmServer, asyncio.Event]:
    """A server whose one busy arm answers when told to."""
    old, new = await product.arm("old"), await product.arm("new")
    go = asyncio.Event()

    async def slow(_: Message, writer: asyncio.StreamWriter) -> None:
        await go.wait()
        writer.write(answer_of("old"))

    old.script = slow
    return await product.serve(routes=[route(old, new, share=0)]), old, go


def _terminate(server: Server) -> None:
    """As a container's runtime, which tells the main process."""
    server.process.terminate()


def _terminate_all(server: Server) -> None:
    """As a supervisor of services that tells every process of the service at once (systemd's default)."""
    for pid in (*server.workers(), server.process.pid):
        os.kill(pid, signal.SIGTERM)


def _ctrl_c(server: Server) -> None:
    """As a terminal, which tells every process of the foreground group."""
    os.killpg(server.process.pid, signal.SIGINT)


def _assert_clean(end: Ended) -> None:
    assert end.code == 0
    assert "Traceback" not in end.stderr
    levels = [json.loads(line)["level"] for line in end.stderr.splitlines()]
    assert set(levels) <= {"info"}, end.stderr


@pytest.mark.parametrize(
    "tell",
    [_terminate, pytest.param(_terminate_all, marks=pytest.mark.long), _ctrl_c],
    ids=["sigterm", "sigterm-to-all", "ctrl-c"],
)
async def test_a_slow_exchange_is_finished(product: Product, tell: Callable[[Server], None]) -> None:
    """Told to stop, it finishes what is under way, refuses what is new, records all, and exits with 0."""
    server, arm, go = await _with_a_slow_arm(product)
    async with server.caller() as caller:
        asking = asyncio.create_task(caller.ask(X_User_Id="ann"))
        await until(lambda: len(arm.seen) == 1)
        tell(server)
        await until_refused(server)
        assert server.process.poll() is None
        go.set()
        answer = await asking
    assert (answer.status, answer["connection"]) == (200, "close")
    _assert_clean(await server.ended())
    arm.script = ArmServer.say(answer_of("old"))
    again = await product.serve()
    assert (await again.totals())["old"].decisions == 1


async def until_refused(server: Server) -> None:
    """Wait until the gateway takes no new connections; each that it takes must not be left hanging."""
    async with asyncio.timeout(5):
        while True:
            try:
                async with server.caller() as caller:
                    await caller.ask("/healthz")
            except (ConnectionError, asyncio.IncompleteReadError) as error:
                if isinstance(error, ConnectionRefusedError):
                    return
            await asyncio.sleep(0.02)


async def test_what_was_acknowledged_last_is_counted(product: Product) -> None:
    """Outcomes acknowledged in the moment before SIGTERM are in the database when the process has ended."""
    old, new = await product.arm("old"), await product.arm("new")
    server = await product.serve(routes=[route(old, new)])
    async with server.caller() as caller:
        tokens = [(await caller.decide(f"u{number}"))[1] for number in range(20)]
        assert (await caller.report([converted(token) for token in tokens])).status == 202
        _assert_clean(await server.stop())
    (server.data_dir / "spools").rename(product.folder / "gone")
    again = await product.serve()
    assert counted(await again.totals()).n == 20


@pytest.mark.long
async def test_a_caller_who_never_finishes_cannot_hold_up_the_end(product: Product) -> None:
    """A request to the control plane that stays incomplete is cut off, and the process ends."""
    old, new = await product.arm("old"), await product.arm("new")
    server = await product.serve(routes=[route(old, new)])
    host, _, port = server.control.removeprefix("http://").rpartition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    half = Caller(reader, writer)
    writer.write(b"PUT /v1/routes/bid HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 100\r\n\r\n{")
    await writer.drain()
    await asyncio.sleep(0.3)
    assert (await server.stop()).code == 0
    await half.close()
