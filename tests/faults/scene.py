"""What attacks and faults are shown on: a worker as its parent starts it, and callers on raw sockets."""

from __future__ import annotations

import asyncio
import os
import secrets
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from app.gateway.options import Options
from app.gateway.settings import GatewaySettings
from app.gateway.snapshots import FILE_NAME, write_snapshot
from routing.claims import SigningKey
from routing.snapshot import Snapshot
from routing.types import TOTAL_BP, Arm, Match, Role, Route, Share, Upstream
from tests.faults.origin import NO_LINGER
from tests.faults.strict import Whole, read_answer

KEY = SigningKey(id=1, secret=b"k" * 32)
PATIENCE_SECONDS = 30.0
_LOOK_SECONDS = 0.01


class Worker:
    """A worker process: where it listens, what it uses, what it has counted and said."""

    def __init__(self, process: subprocess.Popen[bytes], port: int, log: Path) -> None:
        self.process = process
        self.port = port
        self._log = log

    @property
    def log(self) -> str:
        """What it has written to its standard error."""
        return self._log.read_text("utf-8", errors="replace")

    @property
    def troubles(self) -> list[str]:
        """Lines of its log that say that something went wrong in it."""
        wrong = ("Traceback", '"level":"error"', '"level":"critical"', '"trace"', "Exception")
        return [line for line in self.log.splitlines() if any(sign in line for sign in wrong)]

    @property
    def is_alive(self) -> bool:
        return self.process.poll() is None

    @property
    def memory(self) -> int:
        """Bytes that are resident."""
        return int(Path(f"/proc/{self.process.pid}/statm").read_text().split()[1]) * os.sysconf(
            "SC_PAGE_SIZE"
        )

    @property
    def descriptors(self) -> int:
        """How many files and sockets are open."""
        return len(os.listdir(f"/proc/{self.process.pid}/fd"))

    async def figures(self, name: str) -> float:
        """The sum of a metric over its series."""
        async with Wire(self.port) as wire:
            wire.send(b"GET /metrics HTTP/1.1\r\nHost: gateway.test\r\n\r\n")
            answer = await wire.answer()
        lines = answer.body.decode().splitlines()
        return sum(
            float(line.rpartition(" ")[2]) for line in lines if line.startswith((name + "{", name + " "))
        )


class Wire:
    """A caller's connection, byte by byte. What it reads are answers by the letter, or nothing."""

    def __init__(self, port: int, *, receive_bytes: int | None = None) -> None:
        self._port = port
        self._receive_bytes = receive_bytes
        self._unread = b""
        self.has_ended = False

    async def __aenter__(self) -> Wire:
        sock = socket.socket()
        sock.setblocking(False)
        if self._receive_bytes is not None:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, self._receive_bytes)
        try:
            async with asyncio.timeout(PATIENCE_SECONDS):
                await asyncio.get_running_loop().sock_connect(sock, ("127.0.0.1", self._port))
        except BaseException:
            sock.close()
            raise
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.sock = sock
        return self

    async def __aexit__(self, *_: object) -> None:
        self.sock.close()

    def send(self, data: bytes) -> None:
        """Sends a little, at once; a gateway that has ended the connection hears nothing."""
        try:
            self.sock.setblocking(True)
            self.sock.settimeout(PATIENCE_SECONDS)
            self.sock.sendall(data)
        except (BrokenPipeError, ConnectionResetError):
            pass
        finally:
            self.sock.setblocking(False)

    async def push(self, data: bytes) -> None:
        """Sends as fast as it is taken; a gateway that has ended the connection hears nothing."""
        try:
            async with asyncio.timeout(PATIENCE_SECONDS):
                await asyncio.get_running_loop().sock_sendall(self.sock, data)
        except (BrokenPipeError, ConnectionResetError):
            pass

    async def drip(self, data: bytes, slices: int = 400) -> None:
        """Sends in many packets, byte by byte where that is not too many."""
        size = max(1, len(data) // slices)
        for at in range(0, len(data), size):
            self.send(data[at : at + size])
            await asyncio.sleep(0)

    def finish(self) -> None:
        """Says that nothing more will be sent."""
        try:
            self.sock.shutdown(socket.SHUT_WR)
        except OSError:
            self.has_ended = True

    def reset(self) -> None:
        """Ends the connection as a machine does that has lost it."""
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, NO_LINGER)
        self.sock.close()

    async def more(self) -> bool:
        """Waits for more bytes; False when there will be none."""
        if self.has_ended:
            return False
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(PATIENCE_SECONDS):
                data = await loop.sock_recv(self.sock, 256 * 1024)
        except (ConnectionResetError, BrokenPipeError):
            data = b""
            self._unread = self._unread or b""
        self._unread += data
        self.has_ended = not data
        return bool(data)

    async def answer(self, method: bytes = b"GET") -> Whole:
        """The next final answer, whole.

        Raises:
            CutOff: the connection ends before it does.
            Broken: it is no answer.
        """
        while True:
            found = read_answer(self._unread, method)
            if found is not None:
                self._unread = self._unread[found.size :]
                if found.status >= 200:
                    return found
            elif not await self.more():
                raise CutOff(self._unread)

    async def rest(self) -> bytes:
        """Everything up to the end of the connection."""
        while await self.more():
            pass
        return self._unread


class CutOff(Exception):
    """The connection has ended before the answer had: what there was of it."""


@contextmanager
def worker(folder: Path, routes: Sequence[Route], **settings: Any) -> Iterator[Worker]:
    """A worker process that routes by these routes."""
    folder.mkdir(parents=True, exist_ok=True)
    write_snapshot(
        folder / FILE_NAME, Snapshot(version=1, created_at_ms=0, routes=tuple(routes), keys=(KEY,))
    )
    log = folder / "worker.log"
    with socket.create_server(("127.0.0.1", 0), backlog=1024) as listener, log.open("wb") as errors:
        options = Options(folder, "w0", listener.fileno(), GatewaySettings(**settings))
        process = subprocess.Popen(
            [sys.executable, "-m", "app.gateway", *options.arguments()],
            env=_environment() | options.variables(),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            pass_fds=(listener.fileno(),),
        )
        try:
            assert process.stdout is not None
            assert process.stdout.readline().strip() == b"ready", log.read_text()
            yield Worker(process, listener.getsockname()[1], log)
        finally:
            process.terminate()
            try:
                process.communicate(timeout=PATIENCE_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()
                process.communicate()


def route(port: int, name: str = "bid", number: int = 1, **changes: Any) -> Route:
    """The route `/r/NAME` with one arm at a port."""
    return two_armed(port, None, name, number, **changes)


def two_armed(
    port: int, challenger: int | None, name: str = "bid", number: int = 1, share: int = 5_000, **changes: Any
) -> Route:
    """The route `/r/NAME` with a champion at one port, and a challenger with a share of the traffic."""
    first = 10 * number
    arms = [Arm(id=first, name="old", url=f"http://127.0.0.1:{port}/score", role=Role.CHAMPION)]
    shares = [Share(arm_id=first, start_bp=0, end_bp=TOTAL_BP)]
    if challenger is not None:
        url = f"http://127.0.0.1:{challenger}/score"
        arms.append(Arm(id=first + 1, name="new", url=url, role=Role.CHALLENGER))
        shares = [
            Share(arm_id=arm, start_bp=start, end_bp=end)
            for arm, start, end in ((first + 1, 0, share), (first, share, TOTAL_BP))
            if start < end
        ]
    settings: dict[str, Any] = {
        "match": Match(path_prefix=f"/r/{name}"),
        "arms": tuple(arms),
        "shares": tuple(shares),
        "upstream": limits(),
        **changes,
    }
    return Route(id=number, name=name, salt=name, epoch=1, **settings)


def limits(**changes: Any) -> Upstream:
    """Deadlines that no claim runs into on a busy machine, except where they are what it is about."""
    return Upstream(**{"timeout_ms": 20_000, "connect_timeout_ms": 10_000, **changes})


def new_nonce() -> bytes:
    """What tells one exchange from every other: 16 bytes of text."""
    return secrets.token_hex(8).encode()


def get(nonce: bytes, path: bytes = b"/r/bid", *lines: bytes) -> bytes:
    """A clean request without a body."""
    more = b"".join(line + b"\r\n" for line in lines)
    return b"GET %b HTTP/1.1\r\nHost: gateway.test\r\nX-Nonce: %b\r\n%b\r\n" % (path, nonce, more)


def post(nonce: bytes, body: bytes, path: bytes = b"/r/bid") -> bytes:
    """A clean request with a body of known length."""
    head = b"POST %b HTTP/1.1\r\nHost: gateway.test\r\nX-Nonce: %b\r\nContent-Length: %d\r\n\r\n"
    return head % (path, nonce, len(body)) + body


async def until(condition: Callable[[], bool], seconds: float = PATIENCE_SECONDS) -> None:
    """Waits for a condition, with a bound."""
    async with asyncio.timeout(seconds):
        while not condition():  # noqa: ASYNC110  # another process makes it true, which sets no event here
            await asyncio.sleep(_LOOK_SECONDS)


def _environment() -> dict[str, str]:
    """Ours, without settings that are meant for a Kingmaker of whoever runs the tests."""
    return {name: value for name, value in os.environ.items() if not name.startswith("KINGMAKER_")}
