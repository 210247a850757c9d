"""What the claims about reaching arms stand on: a pool of its own, calls, and a listener that counts."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Awaitable, Mapping, Sequence
from contextlib import suppress
from math import inf
from typing import Any

from app.gateway.answers import Answer
from app.gateway.own import Listeners
from app.gateway.pool import Pool
from app.gateway.resolver import Ask, Resolver, ask_system
from app.gateway.targets import Target, target_of
from app.gateway.upstream import Attempt, CalledAttempt, Failure, UpstreamConnection
from routing.addresses import DEFAULT, AddressRules
from routing.types import Arm, Match, Role, Route, Share, Tls, Upstream
from tests.app.gateway.stage import OK


def target_at(url: str, *, tls: Tls | None = None, **changes: Any) -> Target:
    """The target of an arm at this URL, with patience for a busy machine."""
    limits = Upstream(**{"timeout_ms": 20_000, "connect_timeout_ms": 10_000, **changes})
    arm = Arm(id=1, name="old", url=url, role=Role.CHAMPION, tls=tls)
    route = Route(
        id=1,
        name="bid",
        match=Match(path_prefix="/r/bid"),
        arms=(arm,),
        shares=(Share(arm_id=1, start_bp=0, end_bp=10_000),),
        salt="s",
        epoch=1,
        upstream=limits,
    )
    return target_of(route, arm, {}, [])


class Watched:
    """A loop that notes where connections are made to."""

    def __init__(self) -> None:
        self.dialled: list[str] = []
        self._loop = asyncio.get_running_loop()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._loop, name)

    def create_connection(self, protocol: Any, host: str, *rest: Any, **options: Any) -> Awaitable[Any]:
        self.dialled.append(host)
        return self._loop.create_connection(protocol, host, *rest, **options)

    def create_unix_connection(self, protocol: Any, path: str) -> Awaitable[Any]:
        self.dialled.append(path)
        return self._loop.create_unix_connection(protocol, path)


def pool_at(
    url: str,
    *,
    ask: Ask = ask_system,
    rules: AddressRules = DEFAULT,
    own: Listeners = frozenset(),
    watched: Watched | None = None,
    **target: Any,
) -> Pool:
    """The connections to an arm at this URL, whose names are asked for in this way."""
    loop: Any = watched or asyncio.get_running_loop()
    return Pool(loop, target_at(url, **target), rules=rules, own=own, resolver=Resolver(loop, ask))


class Call:
    """One request made over a pool. `outcome` is the status of the answer, or why there is none."""

    method = b"GET"

    def __init__(self, pool: Pool) -> None:
        self.outcome: asyncio.Future[int | Failure] = asyncio.get_running_loop().create_future()
        self.body = b""
        self.attempt = CalledAttempt(self, pool.target, pool, inf)

    def start(self) -> Call:
        """Asks for a connection."""
        self.attempt.pool.acquire(self.attempt)
        return self

    def on_connected(self, attempt: Attempt, connection: UpstreamConnection) -> None:
        target = attempt.target
        line = b"GET %b HTTP/1.1\r\n" % target.request_target(b"", b"")
        connection.send(line + target.host_line + b"\r\n", last=True)

    def on_answer(self, attempt: Attempt, answer: Answer) -> None:
        self.body += b"".join(answer.take_body())
        if answer.complete:
            self.outcome.set_result(answer.status)

    def on_failure(self, attempt: Attempt, failure: Failure) -> None:
        self.outcome.set_result(failure)

    def pause_request(self) -> None: ...
    def resume_request(self) -> None: ...
    def is_sending(self) -> bool:
        return False


async def call(pool: Pool) -> int | Failure:
    """What becomes of one request."""
    return await asyncio.wait_for(Call(pool).start().outcome, 20)


class Listener:
    """An arm that answers 200, and counts who connects. `heads`: the requests; `locals`: where they came."""

    def __init__(self) -> None:
        self.connections = 0
        self.heads: list[bytes] = []
        self.locals: list[str] = []
        self.tls: list[ssl.SSLObject] = []
        self.answer = OK
        self.port = 0
        self._server: asyncio.Server | None = None
        self.writers: set[asyncio.StreamWriter] = set()

    async def start(self, host: str = "127.0.0.1", context: ssl.SSLContext | None = None) -> Listener:
        """Listens on a free port."""
        self._server = await asyncio.start_server(self._serve, host, 0, ssl=context)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def start_at(self, path: str) -> Listener:
        """Listens on a Unix socket."""
        self._server = await asyncio.start_unix_server(self._serve, path)
        return self

    async def stop(self) -> None:
        """Stops, and drops who is connected."""
        assert self._server is not None
        self._server.close()
        for writer in list(self.writers):
            writer.transport.abort()
        await asyncio.sleep(0.01)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self.writers.add(writer)
        self.locals.append(str(writer.get_extra_info("sockname")[0]))
        if (tls := writer.get_extra_info("ssl_object")) is not None:
            self.tls.append(tls)
        with suppress(asyncio.IncompleteReadError, OSError):
            while True:
                self.heads.append(await reader.readuntil(b"\r\n\r\n"))
                writer.write(self.answer)
        self.writers.discard(writer)
        writer.close()


def answering(names: Mapping[str, Sequence[str]]) -> Ask:
    """A resolver that knows these names, and asks the system for none but numbers."""

    def ask(host: str) -> Sequence[str]:
        if host in names:
            return names[host]
        if host[-1:].isdigit() or host.rstrip(".") == "localhost" or "0x" in host:
            return ask_system(host)
        raise OSError(f"{host} is not known")

    return ask
