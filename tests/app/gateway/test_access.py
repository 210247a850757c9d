"""Claims about the access log: one JSON object per exchange, never in the way, nothing lost unseen."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from time import monotonic, sleep
from typing import Any

import pytest

from app.gateway import access
from app.gateway.access import AccessLog, AccessRecord
from app.gateway.backlog import Backlog

SECONDS = 20.0


def record(**changes: Any) -> AccessRecord:
    """What there is to tell of one good exchange."""
    told: dict[str, Any] = {
        "ended_at": 1_764_000_000.25,
        "seconds": 0.0125,
        "route": "bid",
        "arm": "old",
        "assigned": "new",
        "reason": "FALLBACK",
        "method": b"POST",
        "path": "/r/bid/score",
        "status": 200,
        "decision": "token",
        "client": "203.0.113.5",
        "peer": "10.0.0.9",
        "host": b"gateway.test",
        "bytes_in": 7,
        "bytes_out": 2,
        "upstream_seconds": 0.01,
        "trace": "4bf92f3577b34da6a3ce929d0e0e4736",
    }
    return AccessRecord(**{**told, **changes})


def until(condition: Callable[[], bool]) -> None:
    """Waits for another thread, with a bound."""
    end = monotonic() + SECONDS
    while not condition():
        assert monotonic() < end
        sleep(0.005)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Where a log goes."""
    return tmp_path / "access.log"


@pytest.fixture
def log(path: Path) -> Iterator[AccessLog]:
    """A log to a file."""
    log = AccessLog(str(path))
    yield log
    log.close(SECONDS)


def test_a_line_says_what_became_of_an_exchange(log: AccessLog, path: Path) -> None:
    """Who asked what, who was assigned, who answered and why, how long it took, and where else to look."""
    log.note(record())
    log.close(SECONDS)
    assert json.loads(path.read_text()) == {
        "at": "2025-11-24T16:00:00.250+00:00",
        "route": "bid",
        "arm": "old",
        "assigned_arm": "new",
        "reason": "FALLBACK",
        "method": "POST",
        "host": "gateway.test",
        "path": "/r/bid/score",
        "status": 200,
        "bytes_in": 7,
        "bytes_out": 2,
        "duration_ms": 12.5,
        "upstream_ms": 10.0,
        "failure": None,
        "decision": "token",
        "client": "203.0.113.5",
        "peer": "10.0.0.9",
        "trace": "4bf92f3577b34da6a3ce929d0e0e4736",
    }


def test_a_caller_cannot_forge_a_line(log: AccessLog, path: Path) -> None:
    """Whatever stands in what it sent, it is one line, which reads as what was sent."""
    told = '/r/bid\n{"route":"forged"}\x00\x1b[31m"'
    log.note(record(path=told, host=b"\xff\n", method=b"\xe9"))
    log.close(SECONDS)
    [line] = path.read_text().splitlines()
    assert json.loads(line)["path"] == told
    assert json.loads(line)["host"] == "\xff\n"


def test_nothing_is_lost_on_the_way(log: AccessLog, path: Path) -> None:
    """As many lines as records, in their order, whatever the batches."""
    for status in range(5_000):
        log.note(record(status=status))
    log.close(SECONDS)
    assert [json.loads(line)["status"] for line in path.read_text().splitlines()] == list(range(5_000))
    assert log.dropped == 0


def test_a_file_that_was_moved_away_is_begun_anew(
    log: AccessLog, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As logrotate does it: what comes later is found under the name, what came before in what was moved."""
    monkeypatch.setattr(access, "_LOOK_SECONDS", 0.0)
    log.note(record(status=1))
    until(lambda: path.read_bytes().endswith(b"\n"))
    path.rename(path.with_suffix(".1"))
    log.note(record(status=2))
    until(path.exists)
    log.close(SECONDS)
    assert json.loads(path.read_text())["status"] == 2
    assert json.loads(path.with_suffix(".1").read_text())["status"] == 1


def test_a_replaced_file_is_followed(log: AccessLog, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """If somebody has put another file there, that is the one."""
    monkeypatch.setattr(access, "_LOOK_SECONDS", 0.0)
    path.rename(path.with_suffix(".1"))
    path.touch()
    log.note(record(status=3))
    log.close(SECONDS)
    assert json.loads(path.read_text())["status"] == 3


def test_several_workers_share_a_file(path: Path) -> None:
    """No line is torn by another's."""
    logs = [AccessLog(str(path)) for _ in range(3)]

    def write(log: AccessLog, number: int) -> None:
        for _ in range(2_000):
            log.note(record(status=number))

    threads = [threading.Thread(target=write, args=(log, number)) for number, log in enumerate(logs)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for log in logs:
        log.close(SECONDS)
    seen = [json.loads(line)["status"] for line in path.read_text().splitlines()]
    assert sorted(seen) == sorted([0, 1, 2] * 2_000)


def test_a_log_that_cannot_be_opened_is_an_error_at_once(tmp_path: Path) -> None:
    """Not one that shows when the first line should be written."""
    with pytest.raises(FileNotFoundError):
        AccessLog(str(tmp_path / "nowhere" / "access.log"))


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="only Linux has a disk that is always full")
def test_a_full_disk_costs_lines_and_nothing_else() -> None:
    """Each line that was not written is counted."""
    log = AccessLog("/dev/full")
    for _ in range(250):
        log.note(record())
    log.close(SECONDS)
    assert log.dropped == 250


def test_a_torn_line_ends_before_the_next(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a full disk cut off is one bad line: the next good one begins on its own."""
    log = AccessLog(str(path))
    write = os.write
    room = [100, 0]

    def scarce(fd: int, data: bytes) -> int:
        if fd != log._fd or not room:
            return write(fd, data)
        if (left := room.pop(0)) == 0:
            raise OSError(28, "No space left on device")
        return write(fd, data[:left])

    monkeypatch.setattr(os, "write", scarce)
    log.note(record(status=1))
    until(lambda: not room)
    log.note(record(status=2))
    log.close(SECONDS)
    torn, good = path.read_text().splitlines()
    assert len(torn) == 100
    assert json.loads(good)["status"] == 2
    assert log.dropped == 1


def test_standard_output_takes_the_lines() -> None:
    """With `-` they go there, for whoever collects what a container says."""
    program = (
        "from app.gateway.access import *; log = AccessLog('-');"
        "log.note(AccessRecord(0, 0, 'bid', None, None, 'STATIC', b'GET', '/', 503)); log.close(10)"
    )
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True, timeout=60)
    assert json.loads(ran.stdout)["status"] == 503


class Slow:
    """A destination that takes nothing until it is let."""

    def __init__(self) -> None:
        self.begun = threading.Event()
        self.let = threading.Event()
        self.taken: list[list[int]] = []

    def __call__(self, batch: list[int]) -> int:
        self.begun.set()
        assert self.let.wait(SECONDS)
        self.taken.append(batch)
        return 0


def backlog(write: Callable[[list[int]], int], capacity: int = 10, batch: int = 4) -> Backlog[int]:
    """One that waits for no company."""
    return Backlog("test", write, capacity=capacity, batch=batch, gather_seconds=0.0)


def test_a_slow_destination_costs_what_does_not_fit() -> None:
    """A full backlog refuses at once, and counts; what it has taken arrives, in order, in small batches."""
    slow = Slow()
    queue = backlog(slow)
    queue.put(0)
    assert slow.begun.wait(SECONDS)
    assert [queue.put(number) for number in range(1, 16)] == [True] * 10 + [False] * 5
    assert queue.dropped == 5
    slow.let.set()
    queue.close(SECONDS)
    assert slow.taken == [[0], [1, 2, 3, 4], [5, 6, 7, 8], [9, 10]]
    assert queue.dropped == 5


def test_a_batch_that_fails_is_the_only_one_lost(caplog: pytest.LogCaptureFixture) -> None:
    """The thread goes on, and what was lost is counted and logged."""
    taken: list[int] = []

    def write(batch: list[int]) -> int:
        if 1 in batch:
            raise ZeroDivisionError
        taken.extend(batch)
        return 0

    queue = backlog(write, batch=1)
    for number in range(3):
        queue.put(number)
    queue.close(SECONDS)
    assert (taken, queue.dropped) == ([0, 2], 1)
    assert "batch was lost" in caplog.text


def test_closing_does_not_wait_for_ever(caplog: pytest.LogCaptureFixture) -> None:
    """A destination that hangs costs the time that was allowed, and what waited is counted as dropped."""
    slow = Slow()
    queue = backlog(slow, batch=1)
    queue.put(0)
    assert slow.begun.wait(SECONDS)
    queue.put(1)
    queue.close(0.01)
    assert queue.dropped == 1
    assert "backlog was left" in caplog.text
    assert not queue.put(2)
    slow.let.set()
    queue._thread.join(SECONDS)


def test_an_idle_backlog_wakes_for_each_item() -> None:
    """Nothing waits for company: one item at a time, each after the thread went to sleep, arrives."""
    taken: list[int] = []

    def write(batch: list[int]) -> int:
        taken.extend(batch)
        return 0

    queue = backlog(write)
    for number in range(100):
        queue.put(number)
        until(lambda: queue._idle and not queue._queue)
    queue.close(SECONDS)
    assert taken == list(range(100))
