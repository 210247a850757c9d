"""Claims about a worker process: its start, its end, and what is on disk afterwards."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest

from app.events.spool_reader import Batch, read_batch
from app.events.types import DecisionEvent, OutcomeEvent
from app.gateway.options import Options
from app.gateway.settings import GatewaySettings
from app.gateway.snapshots import FILE_NAME, write_snapshot
from routing.snapshot import Snapshot
from routing.types import Arm, Match, MetricRule, Role, Route
from tests.app.gateway.stage import (
    KEY,
    OK,
    ArmServer,
    Message,
    read_message,
    request,
    say_nothing,
    shares,
    until,
)

ROOT = Path(__file__).parents[3]


@pytest.fixture
async def arm() -> AsyncIterator[ArmServer]:
    """A model endpoint."""
    server = ArmServer()
    await server.start()
    yield server
    await server.stop()


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    """A listening socket that workers inherit."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield listener


def publish(data_dir: Path, arm: ArmServer) -> None:
    """Writes a snapshot as the control plane does."""
    route = Route(
        id=1,
        name="bid",
        match=Match(path_prefix="/r/bid"),
        arms=(Arm(id=1, name="old", url=f"http://127.0.0.1:{arm.port}", role=Role.CHAMPION),),
        shares=shares(0),
        salt="s",
        epoch=1,
        metrics=(MetricRule(name="profit", kind="continuous", window_ms=60_000),),
    )
    snapshot = Snapshot(version=5, created_at_ms=0, routes=(route,), keys=(KEY,))
    write_snapshot(data_dir / FILE_NAME, snapshot)


@contextlib.contextmanager
def worker(
    data_dir: Path, listener: socket.socket, name: str = "w0", **limits: Any
) -> Iterator[subprocess.Popen[str]]:
    """A worker that has said it is ready."""
    settings = GatewaySettings(**limits)
    options = Options(data_dir, name, listener.fileno(), settings)
    process = subprocess.Popen(
        [sys.executable, "-m", "app.gateway", *options.arguments()],
        env={**os.environ, **options.variables()},
        cwd=ROOT,
        pass_fds=[listener.fileno()],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        yield process
    finally:
        process.kill()
        process.communicate()


async def draining(process: subprocess.Popen[str]) -> None:
    """Waits until the worker says that it drains."""

    def listen() -> None:
        assert process.stdout is not None
        while (line := process.stdout.readline()) != "draining\n":
            assert line == "alive\n"

    await asyncio.wait_for(asyncio.to_thread(listen), 20)


async def ask(listener: socket.socket, raw: bytes) -> Message:
    """One request on a connection of its own."""
    reader, writer = await asyncio.open_connection(*listener.getsockname())
    writer.write(raw)
    answer = await asyncio.wait_for(read_message(reader), 20)
    writer.close()
    return answer


async def ready(listener: socket.socket) -> None:
    """Waits until the worker has a snapshot."""
    async with asyncio.timeout(20):
        status = 0
        while status != 200:
            await asyncio.sleep(0.02)
            status = (await ask(listener, request(path="/readyz"))).status


def outcome(token: str | None, key: str = "") -> bytes:
    """A report of one outcome."""
    document = {"decision": token, "metric": "profit", "value": 2, "id": key}
    return request("POST", "/v1/outcomes", json.dumps(document).encode())


def on_disk(data_dir: Path) -> Batch:
    """What the spool of the first worker holds."""
    return read_batch(data_dir / "spools" / "w0.db", 0, 1_000_000)


async def ended(process: subprocess.Popen[str]) -> tuple[int, str]:
    """Ends the standard input and waits: the exit status, and what was logged."""
    assert process.stdin is not None
    _, logged = await asyncio.to_thread(process.communicate, None, 30)
    return process.returncode, logged


async def test_a_worker_serves_and_leaves_everything_on_disk(
    tmp_path: Path, listener: socket.socket, arm: ArmServer
) -> None:
    """It starts without a snapshot, takes one when it comes, drains on SIGTERM, and its spool is complete."""
    with worker(tmp_path, listener) as process:
        assert (await ask(listener, request(path="/readyz"))).status == 503
        publish(tmp_path, arm)
        await ready(listener)
        answer = await ask(listener, request())
        token = answer["kingmaker-decision"]
        reported = await ask(listener, outcome(token))
        process.send_signal(signal.SIGTERM)
        status, logged = await ended(process)
    assert (answer.status, reported.status, status) == (200, 202, 0)
    assert all(json.loads(line)["event"] for line in logged.splitlines())
    assert token is not None
    assert token not in logged
    assert {type(event) for event in on_disk(tmp_path).events} == {DecisionEvent, OutcomeEvent}
    assert len(on_disk(tmp_path).events) == 2


async def test_what_was_acknowledged_survives_kill_9(
    tmp_path: Path, listener: socket.socket, arm: ArmServer
) -> None:
    """Each outcome that got its 202 is on disk; the next worker goes on behind them."""
    publish(tmp_path, arm)
    acknowledged: list[str] = []
    with worker(tmp_path, listener) as process:
        token = (await ask(listener, request()))["kingmaker-decision"]
        reporting = [
            asyncio.create_task(report_for_ever(listener, token, f"r{n}", acknowledged)) for n in range(8)
        ]
        await until(lambda: len(acknowledged) >= 200)
        process.kill()
        await asyncio.gather(*reporting)
        await ended(process)
    left = on_disk(tmp_path)
    kept = {event.key for event in left.events if isinstance(event, OutcomeEvent)}
    assert set(acknowledged) <= kept
    with worker(tmp_path, listener) as process:
        assert (await ask(listener, outcome(token, "after"))).status == 202
        process.kill()
        await ended(process)
    last = on_disk(tmp_path)
    assert (last.spool_id, last.events[: len(left.events)]) == (left.spool_id, left.events)
    assert [event.key for event in last.events if isinstance(event, OutcomeEvent)][-1] == "after"


async def report_for_ever(
    listener: socket.socket, token: str | None, name: str, acknowledged: list[str]
) -> None:
    """Reports one outcome after another on one connection, until it is gone."""
    reader, writer = await asyncio.open_connection(*listener.getsockname())
    with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
        for count in itertools.count():
            writer.write(outcome(token, f"{name}-{count}"))
            answer = await read_message(reader)
            assert answer.status == 202
            acknowledged.append(f"{name}-{count}")
    writer.close()


async def test_a_decision_that_drained_too_slowly_is_on_disk(
    tmp_path: Path, listener: socket.socket, arm: ArmServer
) -> None:
    """An exchange that is cut off at the end of the draining time leaves its record."""
    arm.script = say_nothing
    publish(tmp_path, arm)
    with worker(tmp_path, listener, drain_seconds=0.2) as process:
        reader, writer = await asyncio.open_connection(*listener.getsockname())
        writer.write(request())
        await until(lambda: len(arm.seen) == 1)
        process.send_signal(signal.SIGTERM)
        status, _ = await ended(process)
        with contextlib.suppress(ConnectionError):
            assert await reader.read() == b""
        writer.close()
    (event,) = on_disk(tmp_path).events
    assert isinstance(event, DecisionEvent)
    assert (status, event.served_arm_id, event.error) == (0, None, True)


async def test_an_exchange_under_way_is_finished_on_sigterm(
    tmp_path: Path, listener: socket.socket, arm: ArmServer
) -> None:
    """Its answer says that the connection ends; so does that of an idle connection on which another comes."""
    go = asyncio.Event()

    async def slow(_: Message, writer: asyncio.StreamWriter) -> None:
        await go.wait()
        writer.write(OK)

    arm.script = slow
    publish(tmp_path, arm)
    with worker(tmp_path, listener) as process:
        idle, idle_writer = await asyncio.open_connection(*listener.getsockname())
        idle_writer.write(request(path="/healthz"))
        await read_message(idle)
        asking = asyncio.create_task(ask(listener, request()))
        await until(lambda: len(arm.seen) == 1)
        process.send_signal(signal.SIGTERM)
        await draining(process)
        idle_writer.write(request(path="/readyz"))
        last = await asyncio.wait_for(read_message(idle), 20)
        assert await asyncio.wait_for(idle.read(), 20) == b""
        go.set()
        answer = await asking
        status, _ = await ended(process)
        idle_writer.close()
    assert (last.status, last["connection"]) == (503, "close")
    assert (answer.status, answer["connection"], status) == (200, "close", 0)


async def test_a_worker_ends_with_its_parent(tmp_path: Path, listener: socket.socket) -> None:
    """When its standard input ends, it drains and exits."""
    with worker(tmp_path, listener) as process:
        status, _ = await ended(process)
    assert status == 0


async def test_the_end_of_the_parent_and_one_signal_still_drain(
    tmp_path: Path, listener: socket.socket, arm: ArmServer
) -> None:
    """When both reach a worker, as they do when all is shut down, an exchange under way is finished."""
    go = asyncio.Event()

    async def slow(_: Message, writer: asyncio.StreamWriter) -> None:
        await go.wait()
        writer.write(OK)

    arm.script = slow
    publish(tmp_path, arm)
    with worker(tmp_path, listener, drain_seconds=60) as process:
        asking = asyncio.create_task(ask(listener, request()))
        await until(lambda: len(arm.seen) == 1)
        assert process.stdin is not None
        process.stdin.close()
        process.stdin = None
        await draining(process)
        process.send_signal(signal.SIGTERM)
        await asyncio.sleep(0.2)
        go.set()
        answer, status = await asking, await asyncio.to_thread(process.wait, 30)
    assert (answer.status, status) == (200, 0)


async def test_a_second_signal_ends_at_once(tmp_path: Path, listener: socket.socket, arm: ArmServer) -> None:
    """Draining can be cut short."""
    arm.script = say_nothing
    publish(tmp_path, arm)
    with worker(tmp_path, listener, drain_seconds=60) as process:
        _, writer = await asyncio.open_connection(*listener.getsockname())
        writer.write(request())
        await until(lambda: len(arm.seen) == 1)
        process.send_signal(signal.SIGTERM)
        await draining(process)
        process.send_signal(signal.SIGTERM)
        status, _ = await ended(process)
        writer.close()
    assert status == 1


async def test_any_worker_answers_for_all(tmp_path: Path, listener: socket.socket, arm: ArmServer) -> None:
    """The metrics of one worker include those of the other."""
    publish(tmp_path, arm)
    with worker(tmp_path, listener, "w0"), worker(tmp_path, listener, "w1"):
        async with asyncio.timeout(20):
            text = ""
            while not ('worker="w0"' in text and 'worker="w1"' in text):
                text = (await ask(listener, request(path="/metrics"))).body.decode()
                await asyncio.sleep(0.05)
    assert text.count("# TYPE kingmaker_snapshot_version gauge") == 1


async def test_an_access_log_is_whole_when_the_worker_has_ended(
    tmp_path: Path, listener: socket.socket, arm: ArmServer
) -> None:
    """A line per exchange, also of the last one before the end."""
    publish(tmp_path, arm)
    log = tmp_path / "access.log"
    with worker(tmp_path, listener, access_log=str(log)) as process:
        await ready(listener)
        tokens = [(await ask(listener, request()))["kingmaker-decision"] for _ in range(5)]
        process.send_signal(signal.SIGTERM)
        status, _ = await ended(process)
    lines = [json.loads(line) for line in (await asyncio.to_thread(log.read_text)).splitlines()]
    assert (status, [line["decision"] for line in lines]) == (0, tokens)


async def test_a_spool_that_cannot_be_opened_is_said(tmp_path: Path, listener: socket.socket) -> None:
    """The worker exits with 1 and names the reason."""
    (tmp_path / "spools" / "w0.db").mkdir(parents=True)
    command = [sys.executable, "-m", "app.gateway", "--data-dir", str(tmp_path), "--worker", "w0"]
    done = await asyncio.to_thread(
        subprocess.run,
        [*command, "--fd", str(listener.fileno())],
        cwd=ROOT,
        pass_fds=[listener.fileno()],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 1
    assert "worker cannot run" in done.stderr
