"""The load of the measurements: keep-alive connections, each with one POST under way at any time."""

from __future__ import annotations

import asyncio
import json
import sys
import time
from itertools import count
from typing import cast

import httptools
import uvloop

_PAYLOAD = b'{"user":"u","features":"' + b"f" * 474 + b'"}'


class _Caller(asyncio.Protocol):
    """One connection. Notes how long each answer took, in seconds."""

    def __init__(self, path: str, number: int) -> None:
        self.took: list[float] = []
        self.failed = 0
        self._requests = [
            (
                f"POST {path} HTTP/1.1\r\nhost: bench\r\nx-user-id: u{number}-{turn}\r\n"
                f"content-type: application/json\r\ncontent-length: {len(_PAYLOAD)}\r\n\r\n"
            ).encode()
            + _PAYLOAD
            for turn in range(64)
        ]
        self._turn = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._send()

    def data_received(self, data: bytes) -> None:
        self._parser.feed_data(data)

    def on_message_complete(self) -> None:
        self.took.append(time.perf_counter() - self._sent)
        self.failed += self._parser.get_status_code() != 200
        self._send()

    def _send(self) -> None:
        self._parser = httptools.HttpResponseParser(self)
        self._turn = (self._turn + 1) % len(self._requests)
        self._sent = time.perf_counter()
        self._transport.write(self._requests[self._turn])

    def close(self) -> None:
        self._transport.close()


async def _run(port: int, path: str, connections: int, seconds: float) -> dict[str, float]:
    loop = asyncio.get_running_loop()
    numbers = count()
    opened = [
        await loop.create_connection(lambda: _Caller(path, next(numbers)), "127.0.0.1", port)
        for _ in range(connections)
    ]
    callers = [caller for _, caller in opened]
    await asyncio.sleep(seconds)
    took = sorted(duration for caller in callers for duration in caller.took)
    failed = sum(caller.failed for caller in callers)
    for caller in callers:
        caller.close()
    return {
        "requests_per_second": len(took) / seconds,
        "p50_ms": 1000 * took[len(took) // 2],
        "p99_ms": 1000 * took[len(took) * 99 // 100],
        "failed": failed,
    }


if __name__ == "__main__":
    port, path, connections, seconds = sys.argv[1:]
    print(json.dumps(uvloop.run(_run(int(port), path, int(connections), float(seconds)))))
