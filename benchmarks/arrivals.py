"""Requests at a fixed rate, whether or not answers come: an open loop, Poisson arrivals, on the load's core.

A latency counts from when its request was due, so a request that had to wait for a free connection, or for
this generator, is as slow as its caller would say. Everybody is sent the same arrivals.
"""

from __future__ import annotations

import contextlib
import gc
import re
import select
import socket
import subprocess
import sys
import time
from collections import deque
from pathlib import Path
from random import Random

import msgspec

from benchmarks.calls import read
from benchmarks.figures import MeasurementFailed
from benchmarks.processes import LOAD_CORE, pinned, python

CONNECTIONS = 64
_PATIENCE_SECONDS = 10.0
_SEED = 20_260_101
_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
_SLACK = Path("/proc/self/timerslack_ns")


class Arrivals(msgspec.Struct, frozen=True, kw_only=True):
    """How long answers took at a fixed rate. `late_p99_us`: how late the generator itself was in sending."""

    requests: int
    p50_us: float
    p99_us: float
    late_p99_us: float
    failed: int


def arrivals(who: str, port: int, calls: Path, rate: float, seconds: float) -> Arrivals:
    """Send at this rate for so long, over 64 connections.

    Raises:
        MeasurementFailed: an answer was not 200, broke off or never came.
    """
    command = python("-m", "benchmarks.arrivals", str(port), str(calls), str(rate), str(seconds))
    with pinned(LOAD_CORE):
        ran = subprocess.run(command, capture_output=True, check=False, timeout=seconds + 60)
    try:
        found = msgspec.json.decode(ran.stdout, type=Arrivals)
    except msgspec.MsgspecError as error:
        said = ran.stderr.decode(errors="replace").strip()
        raise MeasurementFailed(f"{who}: the load ended with {ran.returncode} and said: {said}") from error
    if found.failed:
        raise MeasurementFailed(f"{who}: {found.failed} of {found.requests} requests failed; all must be 200")
    return found


class _Connection:
    """One keep-alive connection: idle, or with one request under way that was due at `due`."""

    def __init__(self, port: int) -> None:
        self._socket = socket.create_connection(("127.0.0.1", port))
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._received = b""
        self.due = 0.0

    def fileno(self) -> int:
        return self._socket.fileno()

    def send(self, request: bytes, due: float) -> None:
        self.due = due
        self._received = b""
        self._socket.sendall(request)

    def receive(self) -> bool | None:
        """Whether the answer was a 200; None while there is more to come.

        Raises:
            ConnectionError: it broke off.
        """
        data = self._socket.recv(65_536)
        if not data:
            raise ConnectionError("the answer broke off")
        self._received += data
        head, end, body = self._received.partition(b"\r\n\r\n")
        if not end:
            return None
        length = _LENGTH.search(head)
        if length is None:
            raise ConnectionError("the answer says no Content-Length")
        return head[9:12] == b"200" if len(body) >= int(length[1]) else None


class _Generator:
    """Sends what is due on a free connection, or keeps it until one is free; notes every answer."""

    def __init__(self, port: int, requests: list[bytes]) -> None:
        self._requests = requests
        self._idle = [_Connection(port) for _ in range(CONNECTIONS)]
        self._busy: dict[int, _Connection] = {}
        self._waiting: deque[float] = deque()
        self._sent = 0
        self.took: list[float] = []
        self.late: list[float] = []
        self.failed = 0

    def run(self, rate: float, seconds: float) -> None:
        """Send everything, and wait for the last answers for a while."""
        draws = Random(_SEED)
        due = started = time.perf_counter() + 0.1
        while due < started + seconds:
            self._collect(due - time.perf_counter())
            while due <= (now := time.perf_counter()):
                self._arrive(due, now)
                due += draws.expovariate(rate)
        until = time.perf_counter() + _PATIENCE_SECONDS
        while (self._busy or self._waiting) and time.perf_counter() < until:
            self._collect(0.1)
        self.failed += len(self._busy) + len(self._waiting)

    def _arrive(self, due: float, now: float) -> None:
        self.late.append(now - due)
        if self._idle:
            self._send(self._idle.pop(), due)
        else:
            self._waiting.append(due)

    def _send(self, connection: _Connection, due: float) -> None:
        self._busy[connection.fileno()] = connection
        connection.send(self._requests[self._sent % len(self._requests)], due)
        self._sent += 1

    def _collect(self, seconds: float) -> None:
        """Take the answers that have come, or come within so many seconds."""
        ready, _, _ = select.select(list(self._busy), [], [], max(0.0, seconds))
        for number in ready:
            connection = self._busy[number]
            answered = connection.receive()
            if answered is None:
                continue
            self.took.append(time.perf_counter() - connection.due)
            self.failed += not answered
            del self._busy[number]
            if self._waiting:
                self._send(connection, self._waiting.popleft())
            else:
                self._idle.append(connection)


def _run(port: int, calls: Path, rate: float, seconds: float) -> Arrivals:
    with contextlib.suppress(OSError):
        _SLACK.write_text("1000")  # else the kernel may wake it up to 50 µs late
    generator = _Generator(port, read(calls))
    gc.collect()
    gc.freeze()
    gc.disable()
    generator.run(rate, seconds)
    took, late = sorted(generator.took), sorted(generator.late)
    return Arrivals(
        requests=len(late),
        p50_us=1e6 * took[len(took) // 2],
        p99_us=1e6 * took[len(took) * 99 // 100],
        late_p99_us=1e6 * late[len(late) * 99 // 100],
        failed=generator.failed,
    )


if __name__ == "__main__":
    number, file, per_second, duration = sys.argv[1:]
    found = _run(int(number), Path(file), float(per_second), float(duration))
    sys.stdout.buffer.write(msgspec.json.encode(found))
