"""A model endpoint that takes every request and never answers; says at the end how many came."""

from __future__ import annotations

import asyncio
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from benchmarks.processes import LOAD_CORE, free_port, process, python, wait_for


class Silence:
    """Where it listens, and how many requests it has been sent: `heard` is read from `file` at the end."""

    def __init__(self, port: int, file: Path) -> None:
        self.port = port
        self._file = file

    @property
    def heard(self) -> int:
        """Requests that came; known once the endpoint has ended."""
        return int(self._file.read_text())


@contextmanager
def silence(folder: Path) -> Iterator[Silence]:
    """A silent endpoint on the core of the load."""
    port, file, log = free_port(), folder / "heard", folder / "silence.log"
    with process(python("-m", "benchmarks.silence", str(port), str(file)), LOAD_CORE, log) as started:
        wait_for(port, started, log)
        yield Silence(port, file)


class _Caller(asyncio.Protocol):
    def __init__(self, heard: list[int]) -> None:
        self._heard = heard

    def data_received(self, data: bytes) -> None:
        self._heard[0] += data.count(b"\r\n\r\n")


async def _serve(port: int) -> int:
    heard = [0]
    loop = asyncio.get_running_loop()
    ended = asyncio.Event()
    loop.add_signal_handler(signal.SIGTERM, ended.set)
    server = await loop.create_server(lambda: _Caller(heard), "127.0.0.1", port)
    await ended.wait()
    server.close()
    return heard[0]


if __name__ == "__main__":
    Path(sys.argv[2]).write_text(str(asyncio.run(_serve(int(sys.argv[1])))))
