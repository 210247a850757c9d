"""Callers by the thousand that want little: idle ones, slow ones, and one among them who asks."""

from __future__ import annotations

import contextlib
import resource
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPConnection, HTTPException

from benchmarks.calls import HEADER, PAYLOAD
from benchmarks.figures import MeasurementFailed

_SPARE_FILES = 200
_TRICKLE_SECONDS = 1.0
_BEGINNING = b"POST /r/bench HTTP/1.1\r\nHost: bench\r\nX-Slow: "


@contextmanager
def idle_callers(port: int, count: int) -> Iterator[None]:
    """Connections that say nothing."""
    with _connected(port, count):
        yield


@contextmanager
def slow_callers(port: int, count: int) -> Iterator[None]:
    """Connections that have begun a request, and send another byte of its header fields each second."""
    with _connected(port, count) as sockets:
        ended = threading.Event()
        thread = threading.Thread(target=_trickle, args=(sockets, ended), daemon=True)
        thread.start()
        try:
            yield
        finally:
            ended.set()
            thread.join()


def answer_ms(port: int) -> float:
    """How long one caller with a new connection waits for its score.

    Raises:
        MeasurementFailed: the answer is not 200, or never comes.
    """
    started = time.perf_counter()
    try:
        status = _ask(port)
    except (OSError, HTTPException) as error:
        raise MeasurementFailed(f"a caller among many was not answered: {error!r}") from error
    if status != 200:
        raise MeasurementFailed(f"a caller among many was answered {status}; must be 200")
    return 1_000 * (time.perf_counter() - started)


def _ask(port: int) -> int:
    connection = HTTPConnection("127.0.0.1", port, timeout=10)
    with contextlib.closing(connection):
        connection.request("POST", "/r/bench", PAYLOAD, {HEADER: "probe", "Content-Type": "application/json"})
        answer = connection.getresponse()
        answer.read()
        return answer.status


@contextmanager
def _connected(port: int, count: int) -> Iterator[list[socket.socket]]:
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    if most != resource.RLIM_INFINITY and most < count + _SPARE_FILES:
        raise MeasurementFailed(f"open files may be at most {most}; {count + _SPARE_FILES} are needed")
    sockets: list[socket.socket] = []
    try:
        sockets.extend(socket.create_connection(("127.0.0.1", port), timeout=10) for _ in range(count))
        yield sockets
    finally:
        for each in sockets:
            each.close()


def _trickle(sockets: list[socket.socket], ended: threading.Event) -> None:
    data = _BEGINNING
    while True:
        for each in sockets:
            with contextlib.suppress(OSError):  # one that was cut off is what a gateway may do
                each.sendall(data)
        if ended.wait(_TRICKLE_SECONDS):
            return
        data = b"s"
