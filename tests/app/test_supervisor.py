"""Claims about keeping workers alive: one that ends is started again, and after `stop` there is none."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import socket
import subprocess
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from app.supervisor import DRAIN_SECONDS, Supervisor, WorkersNotReady
from tests.app.product import Caller, processes, until


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    """The socket that the workers share."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield listener


@pytest.fixture
async def supervisor(tmp_path: Path, listener: socket.socket) -> AsyncIterator[Supervisor]:
    """One worker, running; it has ended at the end."""
    supervisor = Supervisor(tmp_path, listener, 1)
    await supervisor.start()
    yield supervisor
    await supervisor.stop()
    assert _workers(tmp_path) == []


def _workers(data_dir: Path) -> list[int]:
    """The process ids of the workers of this folder."""
    ours = [pid for pid, parent in processes() if parent == os.getpid()]
    return [pid for pid in ours if str(data_dir).encode() in _command(pid)]


def _command(pid: int) -> bytes:
    command = ["ps", "-ww", "-o", "command=", "-p", str(pid)]
    try:
        proc = Path(f"/proc/{pid}/cmdline")
        return proc.read_bytes() if Path("/proc/self").exists() else subprocess.check_output(command)
    except (OSError, subprocess.CalledProcessError):
        return b""  # it has ended meanwhile


async def _status(listener: socket.socket) -> int:
    caller = Caller(*await asyncio.open_connection(*listener.getsockname()))
    try:
        return (await caller.ask("/healthz")).status
    finally:
        await caller.close()


async def test_a_worker_that_was_killed_is_started_again(
    supervisor: Supervisor, tmp_path: Path, listener: socket.socket
) -> None:
    """Who connects meanwhile waits in the shared socket, and is answered by the next one."""
    [first] = _workers(tmp_path)
    os.kill(first, signal.SIGKILL)
    await until(lambda: first not in _workers(tmp_path))
    assert await _status(listener) == 200
    assert len(_workers(tmp_path)) == 1


def _pauses(caplog: pytest.LogCaptureFixture) -> list[float]:
    """How long was waited before each new start, so far."""
    ends = [record for record in caplog.records if record.message == "worker_ended"]
    return [vars(record)["fields"]["pause_seconds"] for record in ends]


@pytest.mark.parametrize(
    "pauses",
    [[0.1, 0.2, 0.4], pytest.param([0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 5.0, 5.0, 5.0], marks=pytest.mark.long)],
    ids=["at-first", "in-the-end"],
)
async def test_a_worker_that_does_not_get_ready_is_tried_again_ever_less_often(
    supervisor: Supervisor,
    tmp_path: Path,
    listener: socket.socket,
    caplog: pytest.LogCaptureFixture,
    pauses: list[float],
) -> None:
    """While its spool cannot be opened the pauses double, to a bound; once it can, the worker serves."""
    caplog.set_level(logging.ERROR, "app.supervisor")
    spool = tmp_path / "spools" / "w0.db"
    spool.rename(tmp_path / "kept")
    spool.mkdir()
    os.kill(_workers(tmp_path)[0], signal.SIGKILL)
    await until(lambda: len(_pauses(caplog)) >= len(pauses), 90)
    assert _pauses(caplog)[: len(pauses)] == pauses
    spool.rmdir()
    assert await _status(listener) == 200


async def test_no_worker_comes_back_during_the_end(
    tmp_path: Path, listener: socket.socket, caplog: pytest.LogCaptureFixture
) -> None:
    """One that was killed is not started again while another still drains, and afterwards there is none."""
    supervisor = Supervisor(tmp_path, listener, 2)
    await supervisor.start()
    killed, slow = _workers(tmp_path)
    os.kill(slow, signal.SIGSTOP)
    os.kill(killed, signal.SIGKILL)
    await until(lambda: len(_pauses(caplog)) == 1)
    stopping = asyncio.create_task(supervisor.stop())
    await asyncio.sleep(1)
    await until(lambda: _workers(tmp_path) == [slow], 9)
    os.kill(slow, signal.SIGCONT)
    await stopping
    assert _workers(tmp_path) == []


async def test_a_start_that_fails_leaves_no_worker(tmp_path: Path, listener: socket.socket) -> None:
    """When one of two workers does not come up, the start is refused, and stopping ends the other."""
    (tmp_path / "spools" / "w1.db").mkdir(parents=True)
    supervisor = Supervisor(tmp_path, listener, 2)
    with pytest.raises(WorkersNotReady, match="gateway worker w1 did not get ready"):
        await supervisor.start()
    await supervisor.stop()
    assert _workers(tmp_path) == []


@pytest.mark.long
async def test_a_worker_that_hangs_is_killed_in_the_end(tmp_path: Path, listener: socket.socket) -> None:
    """One that does not react is given the time to drain, and a little more."""
    supervisor = Supervisor(tmp_path, listener, 1)
    await supervisor.start()
    [pid] = _workers(tmp_path)
    os.kill(pid, signal.SIGSTOP)
    started = time.monotonic()
    await supervisor.stop()
    assert DRAIN_SECONDS < time.monotonic() - started < DRAIN_SECONDS + 10
    assert _workers(tmp_path) == []
