"""The model endpoints of the measurements: nginx where it is, else a small Python server of our own."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import cast

import uvloop

from benchmarks import nginx
from benchmarks.calls import PAYLOAD
from benchmarks.processes import LOAD_CORE, free_port, process, python, wait_for

_BODY = b'{"score":0.123456,"model":"endpoint","took_ms":0.01,"pad":"' + b"x" * 19 + b'"}'
_ANSWER = (
    b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(_BODY) + _BODY
)


@contextmanager
def endpoints(folder: Path, count: int = 2) -> Iterator[list[int]]:
    """So many model endpoints, in one process on the core of the load; gives their ports."""
    if nginx.find():
        with nginx.endpoint(folder, count) as ports:
            yield ports
        return
    ports = [free_port() for _ in range(count)]
    log = folder / "endpoint.log"
    with process(python("-m", "benchmarks.endpoint", *map(str, ports)), LOAD_CORE, log) as started:
        wait_for(ports[-1], started, log)
        yield ports


class _Endpoint(asyncio.Protocol):
    """Counts whole requests (head and body, which is always as long) and answers each."""

    def __init__(self) -> None:
        self._buffer = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.WriteTransport, transport)

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        while (end := self._buffer.find(b"\r\n\r\n")) >= 0 and len(self._buffer) >= end + 4 + len(PAYLOAD):
            self._buffer = self._buffer[end + 4 + len(PAYLOAD) :]
            self._transport.write(_ANSWER)


async def _serve(ports: list[int]) -> None:
    loop = asyncio.get_running_loop()
    servers = [await loop.create_server(_Endpoint, "127.0.0.1", port) for port in ports]
    await asyncio.gather(*(server.serve_forever() for server in servers))


if __name__ == "__main__":
    uvloop.run(_serve([int(port) for port in sys.argv[1:]]))
