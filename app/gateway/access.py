"""What is written down of each exchange? One JSON object a line, off the loop, else dropped and counted."""

from __future__ import annotations

import logging
import os
import time
from datetime import UTC, datetime

import msgspec

from app.gateway.backlog import Backlog

CAPACITY = 16_384
"""Lines that may wait; at 30,000 requests/s that is half a second in which the disk may pause."""

STDOUT = "-"
_BATCH = 100
_GATHER_SECONDS = 0.02
_LOOK_SECONDS = 1.0

_log = logging.getLogger(__name__)


class AccessRecord(msgspec.Struct, frozen=True, gc=False):
    """What there is to tell of one exchange, for the access log and for its span.

    `path` comes without the query, which may hold secrets. `arm` served, `assigned` was to; `status` is
    `CALLER_LEFT` where there was none yet. `upstream_seconds` is how long the last arm took; bytes are those
    of the bodies. `client` is who called, `peer` who sent it. `failure` is what was wrong with an arm, also
    where another one has answered.
    """

    ended_at: float
    seconds: float
    route: str
    arm: str | None
    assigned: str | None
    reason: str
    method: bytes
    path: str
    status: int
    decision: str | None = None
    client: str = ""
    peer: str = ""
    host: bytes | None = None
    bytes_in: int | None = None
    bytes_out: int | None = None
    upstream_seconds: float | None = None
    failure: str | None = None
    trace: str | None = None


class AccessLine(msgspec.Struct, frozen=True, gc=False):
    """A record as it is written. What is not known is null."""

    at: str
    route: str
    arm: str | None
    assigned_arm: str | None
    reason: str
    method: str
    host: str | None
    path: str
    status: int
    bytes_in: int | None
    bytes_out: int | None
    duration_ms: float
    upstream_ms: float | None
    failure: str | None
    decision: str | None
    client: str
    peer: str
    trace: str | None


class AccessLog:
    """A file, or standard output for `-`, that takes a line per exchange and never keeps the loop waiting.

    A file that was moved away is begun anew under its name. Several workers may share one: each batch is
    appended by one write.

    Raises:
        OSError: the file cannot be opened.
    """

    def __init__(self, target: str, stdout_fd: int = 1) -> None:
        self._target = target
        self._encoder = msgspec.json.Encoder()
        self._fd = stdout_fd if target == STDOUT else _opened(target)
        self._looked_at = time.monotonic()
        self._failing = False
        self._torn = False
        self._backlog: Backlog[AccessRecord] = Backlog(
            "access log", self._write, capacity=CAPACITY, batch=_BATCH, gather_seconds=_GATHER_SECONDS
        )
        self.note = self._backlog.put

    @property
    def dropped(self) -> int:
        """How many lines were not written."""
        return self._backlog.dropped

    def close(self, seconds: float = 2.0) -> None:
        """Writes what waits, within this time. To be called off the loop."""
        self._backlog.close(seconds)

    def _write(self, records: list[AccessRecord]) -> int:
        lines = self._encoder.encode_lines([_line(record) for record in records])
        data, written = b"\n" + lines if self._torn else lines, 0
        try:
            self._follow()
            while written < len(data):
                written += os.write(self._fd, data[written:])
        except OSError as error:
            self._torn = data[written - 1 : written] != b"\n" if written else self._torn
            self._report(error)
            return min(len(records), data.count(b"\n", written))
        self._torn = False
        self._failing = False
        return 0

    def _follow(self) -> None:
        """Opens the file anew once something else, or nothing, is where it was."""
        now = time.monotonic()
        if self._target == STDOUT or now - self._looked_at < _LOOK_SECONDS:
            return
        self._looked_at = now
        try:
            if os.path.samestat(os.stat(self._target), os.fstat(self._fd)):
                return
        except FileNotFoundError:
            pass
        fresh = _opened(self._target)
        os.close(self._fd)
        self._fd = fresh

    def _report(self, error: OSError) -> None:
        """Says once that lines are lost, not for every batch."""
        if not self._failing:
            self._failing = True
            _log.error("access log is not written", extra={"fields": {"error": str(error)}})


def _opened(target: str) -> int:
    return os.open(target, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o640)


def _line(record: AccessRecord) -> AccessLine:
    upstream = record.upstream_seconds
    return AccessLine(
        at=datetime.fromtimestamp(record.ended_at, UTC).isoformat(timespec="milliseconds"),
        route=record.route,
        arm=record.arm,
        assigned_arm=record.assigned,
        reason=record.reason,
        method=record.method.decode("latin-1"),
        host=record.host.decode("latin-1") if record.host is not None else None,
        path=record.path,
        status=record.status,
        bytes_in=record.bytes_in,
        bytes_out=record.bytes_out,
        duration_ms=round(record.seconds * 1000, 3),
        upstream_ms=round(upstream * 1000, 3) if upstream is not None else None,
        failure=record.failure,
        decision=record.decision,
        client=record.client,
        peer=record.peer,
        trace=record.trace,
    )
