"""Claims about keeping workers alive: dead, wedged and old ones are followed, and `stop` ends all."""

from __future__ import annotations

import asyncio
import logging
import os
import pty
import signal
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from app.gateway.options import SETTINGS_VARIABLE
from app.gateway.settings import GatewaySettings
from app.supervisor import SILENCE_SECONDS, Supervisor, WorkersNotReady
from tests.app.product import Caller, processes, until

Gateway = Callable[[int], Supervisor]


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    """The socket that the workers are given."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield listener


@pytest.fixture
async def gateway(tmp_path: Path, listener: socket.socket) -> AsyncIterator[Gateway]:
    """Makes the supervisor of so many workers; none of them runs at the end."""
    made: list[Supervisor] = []

    def make(workers: int) -> Supervisor:
        made.append(Supervisor(tmp_path, listener, workers))
        return made[-1]

    yield make
    for supervisor in made:
        await supervisor.stop()
    assert _workers(tmp_path) == []


def _workers(data_dir: Path) -> list[int]:
    """The process ids of the workers of this folder."""
    ours = [pid for pid, parent in processes() if parent == os.getpid()]
    return sorted(pid for pid in ours if str(data_dir).encode() in _command(pid))


def _command(pid: int) -> bytes:
    command = ["ps", "-ww", "-o", "command=", "-p", str(pid)]
    try:
        proc = Path(f"/proc/{pid}/cmdline")
        return proc.read_bytes() if Path("/proc/self").exists() else subprocess.check_output(command)
    except (OSError, subprocess.CalledProcessError):
        return b""  # it has ended meanwhile


async def _connect(listener: socket.socket) -> Caller:
    return Caller(*await asyncio.open_connection(*listener.getsockname()))


async def _status(listener: socket.socket) -> int:
    caller = await _connect(listener)
    try:
        return (await caller.ask("/healthz")).status
    finally:
        await caller.close()


def _told(caplog: pytest.LogCaptureFixture, *events: str) -> list[dict[str, Any]]:
    """What was logged under these names, so far."""
    return [vars(record)["fields"] for record in caplog.records if record.message in events]


async def test_a_worker_that_was_killed_is_started_again(
    gateway: Gateway, tmp_path: Path, listener: socket.socket
) -> None:
    """Who connects meanwhile waits in the socket, and is answered by the next one."""
    await gateway(1).start()
    [first] = _workers(tmp_path)
    os.kill(first, signal.SIGKILL)
    await until(lambda: first not in _workers(tmp_path))
    assert await _status(listener) == 200
    assert len(_workers(tmp_path)) == 1


@pytest.mark.parametrize(
    "pauses",
    [[0.1, 0.2, 0.4], pytest.param([0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 5.0, 5.0, 5.0], marks=pytest.mark.long)],
    ids=["at-first", "in-the-end"],
)
async def test_a_worker_that_does_not_get_ready_is_tried_again_ever_less_often(
    gateway: Gateway,
    tmp_path: Path,
    listener: socket.socket,
    caplog: pytest.LogCaptureFixture,
    pauses: list[float],
) -> None:
    """While its spool cannot be opened the pauses double, to a bound; once it can, the worker serves."""
    caplog.set_level(logging.ERROR, "app.supervisor")
    await gateway(1).start()
    spool = tmp_path / "spools" / "w0.db"
    spool.rename(tmp_path / "kept")
    spool.mkdir()
    os.kill(_workers(tmp_path)[0], signal.SIGKILL)
    await until(lambda: len(_told(caplog, "worker_ended", "worker_not_ready")) >= len(pauses), 90)
    told = _told(caplog, "worker_ended", "worker_not_ready")
    assert [fields["pause_seconds"] for fields in told][: len(pauses)] == pauses
    assert "cannot open spool" in told[1]["error"]
    spool.rmdir()
    assert await _status(listener) == 200


async def test_connections_go_to_the_others_while_one_cannot_start(
    gateway: Gateway, tmp_path: Path, listener: socket.socket, caplog: pytest.LogCaptureFixture
) -> None:
    """Nobody waits at a place where no worker comes up; once one does, it takes its part again."""
    caplog.set_level(logging.ERROR, "app.supervisor")
    address = listener.getsockname()
    await gateway(2).start()
    spool = tmp_path / "spools" / "w0.db"
    spool.rename(tmp_path / "kept")
    spool.mkdir()
    os.kill(_workers_named(tmp_path)["w0"], signal.SIGKILL)
    await until(lambda: len(_told(caplog, "worker_not_ready")) >= 2)
    for _ in range(20):
        caller = Caller(*await asyncio.open_connection(*address))
        assert (await caller.ask("/healthz")).status == 200
        await caller.close()
    spool.rmdir()
    await until(lambda: "w0" in _workers_named(tmp_path))


def _workers_named(data_dir: Path) -> dict[str, int]:
    """The workers of this folder by their names."""
    commands = {pid: _command(pid).split(b"\0") for pid in _workers(data_dir)}
    return {
        words[words.index(b"--worker") + 1].decode(): pid
        for pid, words in commands.items()
        if b"--worker" in words
    }


async def test_a_wedged_worker_is_killed_and_followed(
    gateway: Gateway, tmp_path: Path, listener: socket.socket, caplog: pytest.LogCaptureFixture
) -> None:
    """One whose loop no longer turns is noticed by its silence, and the next one answers who has waited."""
    caplog.set_level(logging.ERROR, "app.supervisor")
    await gateway(1).start()
    [wedged] = _workers(tmp_path)
    os.kill(wedged, signal.SIGSTOP)
    waiting = asyncio.create_task(_status(listener))
    await until(lambda: wedged not in _workers(tmp_path))
    assert await waiting == 200
    [told] = _told(caplog, "worker_wedged")
    assert told["worker"] == "w0"
    assert told["silent_seconds"] > SILENCE_SECONDS


@pytest.mark.long
async def test_a_worker_that_lives_is_left_alone(gateway: Gateway, tmp_path: Path) -> None:
    """For longer than silence is borne, also when the supervisor itself was absent for so long."""
    await gateway(1).start()
    before = _workers(tmp_path)
    await asyncio.sleep(SILENCE_SECONDS + 2)
    os.kill(before[0], signal.SIGSTOP)
    time.sleep(SILENCE_SECONDS + 2)  # noqa: ASYNC251  # all stand still, as in a machine that sleeps
    os.kill(before[0], signal.SIGCONT)
    await asyncio.sleep(3)
    assert _workers(tmp_path) == before


async def test_a_worker_that_was_told_to_end_is_followed_at_once(
    gateway: Gateway, tmp_path: Path, listener: socket.socket
) -> None:
    """By another beside it, which takes what is new while it still drains."""
    await gateway(1).start()
    [first] = _workers(tmp_path)
    held = await _connect(listener)
    assert (await held.ask("/healthz")).status == 200
    os.kill(first, signal.SIGTERM)
    assert await _status(listener) == 200
    await until(lambda: len(_workers(tmp_path)) == 2)
    assert (await held.ask("/readyz")).status == 503
    await until(lambda: first not in _workers(tmp_path))
    await held.close()
    assert await _status(listener) == 200


async def test_sighup_replaces_every_worker(
    gateway: Gateway, tmp_path: Path, listener: socket.socket
) -> None:
    """All processes are new, and a caller that held a connection to an old one was answered to the end."""
    await gateway(2).start()
    before = _workers(tmp_path)
    held = await _connect(listener)
    assert (await held.ask("/healthz")).status == 200
    os.kill(os.getpid(), signal.SIGHUP)
    closing = await held.ask("/healthz")
    while closing["connection"] != "close":
        await asyncio.sleep(0.05)
        closing = await held.ask("/healthz")
    assert closing.status == 200
    await held.close()
    await until(lambda: len(set(_workers(tmp_path)) - set(before)) == 2 and len(_workers(tmp_path)) == 2)
    assert await _status(listener) == 200


async def test_a_restart_that_fails_leaves_the_old_workers(
    gateway: Gateway, tmp_path: Path, listener: socket.socket, caplog: pytest.LogCaptureFixture
) -> None:
    """When the new worker does not get ready, no old one is asked to go."""
    caplog.set_level(logging.ERROR, "app.supervisor")
    supervisor = gateway(2)
    await supervisor.start()
    before = _workers(tmp_path)
    (tmp_path / "spools" / "w0.1.db").mkdir()
    supervisor.restart()
    await until(lambda: len(_told(caplog, "worker_not_replaced")) == 1)
    assert "cannot open spool" in _told(caplog, "worker_not_replaced")[0]["error"]
    await until(lambda: _workers(tmp_path) == before)
    assert await _status(listener) == 200


async def test_connections_are_divided_among_workers(
    gateway: Gateway, tmp_path: Path, listener: socket.socket
) -> None:
    """Of many connections, made one after the other, each of two workers gets a good part."""
    await gateway(2).start()
    callers = [await _connect(listener) for _ in range(64)]
    for caller in callers:
        assert (await caller.ask("/healthz")).status == 200
    counts: list[float] = []
    while sum(counts) < 64:
        text = (await callers[0].ask("/metrics")).body.decode()
        series = [line for line in text.splitlines() if line.startswith("kingmaker_connections{")]
        counts = [float(line.split()[1]) for line in series]
        await asyncio.sleep(0.05)
    for caller in callers:
        await caller.close()
    assert len(counts) == 2
    assert min(counts) >= 8


async def test_no_worker_comes_back_during_the_end(
    tmp_path: Path, listener: socket.socket, caplog: pytest.LogCaptureFixture
) -> None:
    """One that was killed is not started again while another still drains, and afterwards there is none."""
    supervisor = Supervisor(tmp_path, listener, 2)
    await supervisor.start()
    killed, slow = _workers(tmp_path)
    os.kill(slow, signal.SIGSTOP)
    os.kill(killed, signal.SIGKILL)
    await until(lambda: len(_told(caplog, "worker_ended")) == 1)
    stopping = asyncio.create_task(supervisor.stop())
    await asyncio.sleep(1)
    await until(lambda: _workers(tmp_path) == [slow], 9)
    os.kill(slow, signal.SIGCONT)
    await stopping
    assert _workers(tmp_path) == []


async def test_a_start_that_fails_leaves_no_worker(tmp_path: Path, listener: socket.socket) -> None:
    """When one of two workers does not come up, the start is refused with the reason, and the other ends."""
    (tmp_path / "spools" / "w1.db").mkdir(parents=True)
    supervisor = Supervisor(tmp_path, listener, 2)
    with pytest.raises(WorkersNotReady, match=r"gateway worker w1 did not get ready: cannot open spool .*w1"):
        await supervisor.start()
    await supervisor.stop()
    assert _workers(tmp_path) == []


async def test_workers_are_told_their_settings(tmp_path: Path, listener: socket.socket) -> None:
    """Not on their command lines, which everybody can read."""
    settings = GatewaySettings(drain_seconds=7, traces="https://user:secret@collector")
    supervisor = Supervisor(tmp_path, listener, 1, settings)
    await supervisor.start()
    [pid] = _workers(tmp_path)
    if os.path.exists(f"/proc/{pid}/environ"):  # noqa: ASYNC240  # a file of the kernel
        told = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")  # noqa: ASYNC240
        [settings_told] = [part for part in told if part.startswith(SETTINGS_VARIABLE.encode())]
        assert b'"drain_seconds":7' in settings_told
    assert b"secret" not in _command(pid)
    await supervisor.stop()


async def test_a_lame_duck_answers_but_is_not_ready(tmp_path: Path, listener: socket.socket) -> None:
    """Until its time is over: whoever connects is answered, once, and sees that others are to be asked."""
    supervisor = Supervisor(tmp_path, listener, 2, GatewaySettings(lame_duck_seconds=3, drain_seconds=5))
    await supervisor.start()
    stopping = asyncio.create_task(supervisor.stop())
    in_a_row = 0
    while in_a_row < 10:
        caller = await _connect(listener)
        answer = await caller.ask("/healthz")
        await caller.close()
        assert answer.status == 200
        in_a_row = in_a_row + 1 if answer["connection"] == "close" else 0
    caller = await _connect(listener)
    assert (await caller.ask("/readyz")).status == 503
    await caller.close()
    assert len(_workers(tmp_path)) == 2
    await asyncio.wait_for(stopping, 15)
    assert _workers(tmp_path) == []


async def test_who_asks_lame_ducks_never_waits_for_a_dead_one(
    tmp_path: Path, listener: socket.socket
) -> None:
    """One that dies is not followed, so its share of callers goes to the other; without any it is over."""
    address = listener.getsockname()
    supervisor = Supervisor(tmp_path, listener, 2, GatewaySettings(lame_duck_seconds=60))
    await supervisor.start()
    first, second = _workers(tmp_path)
    stopping = asyncio.create_task(supervisor.stop())
    await asyncio.sleep(0.5)
    os.kill(first, signal.SIGKILL)
    await until(lambda: _workers(tmp_path) == [second])
    await asyncio.sleep(0.5)
    for _ in range(10):
        caller = Caller(*await asyncio.open_connection(*address))
        assert (await asyncio.wait_for(caller.ask("/healthz"), 5)).status == 200
        await caller.close()
    os.kill(second, signal.SIGKILL)
    await asyncio.wait_for(stopping, 15)


async def test_a_lame_duck_can_be_cut_short(tmp_path: Path, listener: socket.socket) -> None:
    """By who is in a hurry; and a start that failed is not waited for at all."""
    hurry = asyncio.Event()
    settings = GatewaySettings(lame_duck_seconds=60)
    supervisor = Supervisor(tmp_path, listener, 1, settings, hurry=hurry)
    await supervisor.start()
    stopping = asyncio.create_task(supervisor.stop())
    await asyncio.sleep(0.2)
    assert len(_workers(tmp_path)) == 1
    hurry.set()
    await asyncio.wait_for(stopping, 15)
    (tmp_path / "elsewhere/spools/w0.db").mkdir(parents=True)
    with socket.create_server(("127.0.0.1", 0)) as another:
        failing = Supervisor(tmp_path / "elsewhere", another, 1, settings)
        with pytest.raises(WorkersNotReady):
            await failing.start()
        await asyncio.wait_for(failing.stop(), 15)


async def test_a_worker_that_hangs_is_killed_in_the_end(tmp_path: Path, listener: socket.socket) -> None:
    """One that does not even say that it lives is not waited for as long as one that drains."""
    supervisor = Supervisor(tmp_path, listener, 1, GatewaySettings(drain_seconds=60))
    await supervisor.start()
    [pid] = _workers(tmp_path)
    os.kill(pid, signal.SIGSTOP)
    async with asyncio.timeout(30):
        await supervisor.stop()
    assert _workers(tmp_path) == []


async def test_a_closed_terminal_is_no_request_for_new_workers(tmp_path: Path) -> None:
    """A gateway that was started at a terminal ends with it, by the same signal that elsewhere replaces."""
    command = [str(Path(sys.executable).with_name("kingmaker")), "gateway", "--gateway-port", "0"]
    pid, terminal = pty.fork()
    if pid == 0:
        os.execv(command[0], [*command, "--data-dir", str(tmp_path / "data")])  # noqa: S606
    said = b""
    while b"http://" not in said:
        said += await asyncio.to_thread(os.read, terminal, 4096)
    os.close(terminal)
    _, status = await asyncio.wait_for(asyncio.to_thread(os.waitpid, pid, 0), 30)
    assert os.waitstatus_to_exitcode(status) in (0, 1)
    await until(lambda: not [one for one, _ in processes() if str(tmp_path).encode() in _command(one)])
