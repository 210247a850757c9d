"""What gateway tests stand on: arms with scripted answers, a worker in process, a caller on a raw socket."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from random import Random
from typing import Any, cast

import msgspec

from app.events.spool import SpoolError
from app.events.types import DecisionEvent, Event, ShadowEvent
from app.gateway.counters import Counters
from app.gateway.http1 import ClientConnection
from app.gateway.snapshots import routing_of
from app.gateway.worker import TICK_SECONDS, Worker
from routing.claims import Claims, SigningKey
from routing.snapshot import Snapshot
from routing.tokens import verify
from routing.types import TOTAL_BP, Arm, ArmHeader, Match, MetricRule, Role, Route, Share, Upstream

KEY = SigningKey(id=7, secret=b"k" * 32)
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


@dataclass
class Message:
    """A parsed message: its first line, header fields (lower-case names, in order) and body."""

    line: str
    fields: list[tuple[str, str]]
    body: bytes = b""
    chunks: int = 0

    @property
    def status(self) -> int:
        return int(self.line.split(" ")[1])

    def __getitem__(self, name: str) -> str | None:
        return next((value for known, value in self.fields if known == name), None)

    def all(self, name: str) -> list[str]:
        """The values of every field with this name."""
        return [value for known, value in self.fields if known == name]


async def read_message(reader: asyncio.StreamReader, *, bodiless: bool = False) -> Message:
    """One message off a stream, framed by length, chunks or (answers) the end of the stream."""
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
    line, *rest = head[:-4].split("\r\n")
    fields = [(name.lower(), value.strip()) for name, _, value in (field.partition(":") for field in rest)]
    message = Message(line, fields)
    is_answer = line.startswith("HTTP/")
    if bodiless or (is_answer and (message.status < 200 or message.status in (204, 304))):
        return message
    if message["transfer-encoding"] == "chunked":
        while size := int(await reader.readuntil(b"\r\n"), 16):
            message.body += await reader.readexactly(size)
            message.chunks += 1
            await reader.readexactly(2)
        await reader.readexactly(2)
    elif (length := message["content-length"]) is not None:
        message.body = await reader.readexactly(int(length))
    elif is_answer:
        message.body = await reader.read()
    return message


Script = Callable[[Message, asyncio.StreamWriter], Awaitable[None]]


class ArmServer:
    """A model endpoint. `script` answers; `seen` are the requests, `connections` how many were opened.

    `eager` answers before the body is read; `stop_reading` never reads one. `receive_bytes` is what the
    system takes in for it before it reads.
    """

    def __init__(self) -> None:
        self.seen: list[Message] = []
        self.connections = 0
        self.open: set[asyncio.StreamWriter] = set()
        self.script: Script = self.say(OK)
        self.eager: Script | None = None
        self.stop_reading = False
        self.port = 0
        self.receive_bytes: int | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    @staticmethod
    def say(answer: bytes, *, close: bool = False, once: asyncio.Event | None = None) -> Script:
        """A script that always answers the same, though not before this event."""

        async def script(_: Message, writer: asyncio.StreamWriter) -> None:
            if once is not None:
                await once.wait()
            writer.write(answer)
            if close:
                writer.close()

        return script

    async def start(self) -> None:
        listener = socket.create_server(("127.0.0.1", self.port))
        if self.receive_bytes is not None:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, self.receive_bytes)
        self._server = await asyncio.start_server(self._serve, sock=listener)
        self.port = listener.getsockname()[1]

    async def stop(self) -> None:
        """Stops accepting, and drops every connection, whatever its script is doing."""
        self._server.close()
        for writer in list(self.open):
            writer.transport.abort()
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        self.connections += 1
        self.open.add(writer)
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
            await self._answer(reader, writer)
        self._tasks.discard(task)
        self.open.discard(writer)
        writer.close()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self.stop_reading:
            await asyncio.Event().wait()
        if self.eager is not None:
            await reader.readuntil(b"\r\n\r\n")
            await self.eager(Message("", []), writer)
            await reader.read()
        while not writer.is_closing():
            request = await read_message(reader)
            self.seen.append(request)
            await self.script(request, writer)


@dataclass
class Memory:
    """A spool that keeps events in memory; `refuses`: the disk is full; `slow`: it is not done yet."""

    events: list[Any] = field(default_factory=list)
    outcomes: list[Any] = field(default_factory=list)
    refuses: bool = False
    slow: bool = False
    undone: list[Callable[[SpoolError | None], None]] = field(default_factory=list)
    dropped: int = 0
    waiting: int = 0

    def append(self, event: DecisionEvent | ShadowEvent) -> None:
        self.events.append(event)

    def commit(self, events: Sequence[Event], done: Callable[[SpoolError | None], None]) -> None:
        if self.refuses:
            done(SpoolError("disk is full"))
        elif self.slow:
            self.undone.append(done)
        else:
            self.outcomes += events
            done(None)


class Stage:
    """A worker with a champion and a challenger behind it, served on a free port."""

    def __init__(self) -> None:
        self.loop = asyncio.get_running_loop()
        self.champion, self.challenger = ArmServer(), ArmServer()
        self.spool = Memory()
        self.worker = Worker(self.loop, self.spool, Counters("w0"), Random(1), list)
        self.version = 0
        self.port = 0
        self.environment: dict[str, str] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._callers: list[asyncio.StreamWriter] = []

    async def start(self) -> None:
        await self.champion.start()
        await self.challenger.start()
        self.route()
        self._server = await self.loop.create_server(
            lambda: cast(asyncio.Protocol, ClientConnection(self.worker)), "127.0.0.1", 0
        )
        self.port = self._server.sockets[0].getsockname()[1]
        self._tick()

    async def stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._server.close()
        for caller in self._callers:
            caller.close()
        self.worker.close()
        await self.champion.stop()
        await self.challenger.stop()
        await until(self.worker.quiet.is_set)
        await asyncio.sleep(0.001)

    def route(self, challenger_bp: int = 5_000, **changes: Any) -> Route:
        """Adopts a snapshot with one route, `/r/bid`, with this share for the challenger."""
        settings: dict[str, Any] = {
            "id": 1,
            "name": "bid",
            "match": Match(path_prefix="/r/bid"),
            "arms": self.arms(),
            "shares": shares(challenger_bp),
            "salt": "salt",
            "epoch": 3,
            "metrics": (
                MetricRule(name="conversion", kind="binary", window_ms=3_600_000),
                MetricRule(name="profit", kind="continuous", window_ms=3_600_000),
            ),
            "upstream": limits(),
        }
        route = Route(**{**settings, **changes})
        self.version += 1
        snapshot = Snapshot(version=self.version, created_at_ms=0, routes=(route,), keys=(KEY,))
        self.worker.adopt(routing_of(snapshot, self.environment))
        return route

    def limit(self, **changes: Any) -> None:
        """Gives the worker other limits from now on."""
        self.worker.settings = msgspec.structs.replace(self.worker.settings, **changes)

    def arms(self, **headers: str) -> tuple[Arm, Arm]:
        """Champion and challenger; `headers` are sent to the champion, with values from the environment."""
        declared = tuple(ArmHeader(name=name, env=variable) for name, variable in headers.items())
        old = f"http://127.0.0.1:{self.champion.port}/score"
        new = f"http://127.0.0.1:{self.challenger.port}/v2"
        return (
            Arm(id=1, name="old", url=old, role=Role.CHAMPION, headers=declared),
            Arm(id=2, name="new", url=new, role=Role.CHALLENGER),
        )

    async def connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """A caller's connection; it ends with the stage at the latest."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port, limit=1024 * 1024)
        self._callers.append(writer)
        return reader, writer

    async def send(self, raw: bytes) -> Message:
        """Sends bytes on a connection of their own, and reads one answer, which may be an interim one."""
        reader, writer = await self.connect()
        try:
            writer.write(raw)
            return await asyncio.wait_for(read_message(reader, bodiless=raw.startswith(b"HEAD")), 10)
        finally:
            writer.close()

    async def ask(
        self, method: str = "GET", path: str = "/r/bid", body: bytes | None = None, **headers: str
    ) -> Message:
        """Sends one well-formed request; header names are written with `_` for `-`."""
        return await self.send(request(method, path, body, **headers))

    def counted(self, name: str) -> float:
        """The sum of a counter over its labels."""
        values = self.worker.dump().values.items()
        return sum(value for series, value in values if series.startswith(name + "{"))

    def _tick(self) -> None:
        self._timer = self.loop.call_later(TICK_SECONDS, self._tick)
        self.worker.tick()


def request(method: str = "GET", path: str = "/r/bid", body: bytes | None = None, **headers: str) -> bytes:
    """One well-formed request; header names are written with `_` for `-`."""
    lines = [f"{method} {path} HTTP/1.1", "Host: gateway.test"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    if body is not None:
        lines.append(f"Content-Length: {len(body)}")
    return "\r\n".join([*lines, "", ""]).encode("latin-1") + (body or b"")


def shares(challenger_bp: int) -> tuple[Share, ...]:
    """The challenger's share of the buckets, and the champion's."""
    both = (
        Share(arm_id=2, start_bp=0, end_bp=challenger_bp),
        Share(arm_id=1, start_bp=challenger_bp, end_bp=TOTAL_BP),
    )
    return tuple(share for share in both if share.start_bp < share.end_bp)


def limits(**changes: Any) -> Upstream:
    """Deadlines that no claim runs into on a busy machine, except where they are what it is about."""
    return Upstream(**{"timeout_ms": 20_000, "connect_timeout_ms": 10_000, **changes})


async def say_nothing(_: Message, __: asyncio.StreamWriter) -> None:
    """The script of an arm that hangs."""


async def close_at_once(_: Message, writer: asyncio.StreamWriter) -> None:
    """The script of an arm that dies when it should answer."""
    writer.close()


def claims_of(answer: Message) -> Claims:
    """What the answer's decision token says."""
    token = answer["kingmaker-decision"]
    assert token is not None
    return verify(token, {KEY.id: KEY})


async def until(condition: Callable[[], bool], seconds: float = 20.0) -> None:
    """Waits for a condition, with a bound."""
    async with asyncio.timeout(seconds):
        while not condition():  # noqa: ASYNC110  # of most that is waited for here, nobody sets an event
            await asyncio.sleep(0.005)
