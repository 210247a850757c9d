"""What stands between a gateway and an arm when the network fails: one fault at a time, as told."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from dataclasses import dataclass

from tests.faults.origin import NO_LINGER

_READ_BYTES = 16 * 1024


@dataclass(frozen=True, slots=True)
class Fault:
    """What goes wrong on the way of an answer, and of the request where `both` ways.

    `latency`: seconds that each piece is late. `bandwidth`: bytes a second. `slice_bytes`: pieces are cut to
    so many bytes, `slice_pause` seconds apart. `limit`: after so many bytes the connection ends.
    `slow_close`: seconds that an end is late. `swallow`: nothing passes, and after so many seconds the
    connection ends. `reset`: it ends by a reset, so many seconds after it began. `down`: nobody listens.
    """

    name: str = "none"
    latency: float = 0.0
    bandwidth: int | None = None
    slice_bytes: int | None = None
    slice_pause: float = 0.0
    limit: int | None = None
    slow_close: float = 0.0
    swallow: float | None = None
    reset: float | None = None
    down: bool = False
    both: bool = False


HEALTHY = Fault()


class FaultProxy:
    """Listens on a free port, and passes on to another one. A fault applies to connections made from then on,
    and to what passes on those that there are."""

    def __init__(self, port: int) -> None:
        self._behind = port
        self._fault = HEALTHY
        self._server: asyncio.Server | None = None
        self._writers: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self.port = 0
        self.accepted = 0

    @property
    def fault(self) -> Fault:
        return self._fault

    async def start(self) -> None:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self.port)
        self.port = self._server.sockets[0].getsockname()[1]

    async def fail(self, fault: Fault) -> None:
        """From now on this goes wrong, and nothing else."""
        self._fault = fault
        if fault.down:
            await self.stop()
        elif self._server is None:
            await self.start()

    async def stop(self) -> None:
        """Stops listening, and drops every connection."""
        if self._server is not None:
            self._server.close()
            self._server = None
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for writer in list(self._writers):
            writer.transport.abort()
        await asyncio.sleep(0.01)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        self._writers.add(writer)
        self.accepted += 1
        behind: asyncio.StreamWriter | None = None
        with contextlib.suppress(OSError, asyncio.CancelledError):
            there, behind = await asyncio.open_connection("127.0.0.1", self._behind)
            self._writers.add(behind)
            await self._relay(reader, writer, there, behind)
        for end in (writer, behind):
            if end is not None:
                end.transport.abort()
                self._writers.discard(end)
        self._tasks.discard(task)

    async def _relay(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        there: asyncio.StreamReader,
        behind: asyncio.StreamWriter,
    ) -> None:
        ways = [
            asyncio.ensure_future(self._pass(reader, behind, is_answer=False)),
            asyncio.ensure_future(self._pass(there, writer, is_answer=True)),
            asyncio.ensure_future(self._watch(writer)),
        ]
        try:
            await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
            if self._fault.slow_close:
                await asyncio.sleep(self._fault.slow_close)
        finally:
            for way in ways:
                way.cancel()
            await asyncio.gather(*ways, return_exceptions=True)
            writer.close()
            behind.close()
        await asyncio.sleep(0.05)  # what was written still leaves

    async def _watch(self, writer: asyncio.StreamWriter) -> None:
        """Ends the connection when its fault says so."""
        loop = asyncio.get_running_loop()
        began = loop.time()
        while True:
            fault, passed = self._fault, loop.time() - began
            if fault.reset is not None and passed >= fault.reset:
                sock = writer.get_extra_info("socket")
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, NO_LINGER)
                writer.transport.abort()
                return
            if fault.swallow is not None and passed >= fault.swallow:
                return
            await asyncio.sleep(0.005)

    async def _pass(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, is_answer: bool
    ) -> None:
        passed = 0
        while data := await reader.read(_READ_BYTES):
            fault = self._fault
            if not (is_answer or fault.both):
                fault = HEALTHY
            if fault.swallow is not None:
                continue
            if fault.latency:
                await asyncio.sleep(fault.latency)
            size = fault.slice_bytes or len(data)
            if fault.bandwidth is not None:
                size = max(1, min(size, fault.bandwidth // 50))
            for at in range(0, len(data), size):
                piece = data[at : at + size]
                if fault.limit is not None and passed + len(piece) > fault.limit:
                    writer.write(piece[: fault.limit - passed])
                    return
                passed += len(piece)
                writer.write(piece)
                await writer.drain()
                if fault.bandwidth is not None:
                    await asyncio.sleep(len(piece) / fault.bandwidth)
                if fault.slice_pause:
                    await asyncio.sleep(fault.slice_pause)
