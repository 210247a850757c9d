"""A worker's life: accepts on the socket it was given, takes new snapshots, drains, loses nothing."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import socket
import stat
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from random import SystemRandom

import msgspec

from app.events.spool import Spool
from app.gateway.counters import Counters, Dump
from app.gateway.http1 import ClientConnection
from app.gateway.snapshots import FILE_NAME, SnapshotFile
from app.gateway.worker import TICK_SECONDS, Worker

SNAPSHOT_SECONDS = 0.1
FIGURES_SECONDS = 1.0
_ABORT_SECONDS = 1.0
_FIGURES_AGE_SECONDS = 10.0
_BACKLOG = 1024

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Options:
    """What a worker is started with. `listener_fd` is an inherited listening TCP socket."""

    data_dir: Path
    worker: str
    listener_fd: int
    drain_seconds: float = 10.0


async def serve(options: Options, environment: Mapping[str, str]) -> None:
    """Runs one worker until SIGTERM, SIGINT, or the end of its parent.

    Raises:
        SpoolError: the spool cannot be opened.
        OSError: the inherited socket cannot be used.
    """
    life = Life(asyncio.get_running_loop(), options, environment)
    await life.start()
    print("ready", flush=True)
    await life.stopped.wait()
    await life.drain()


class Life:
    """One worker's life. `stopped` is set when it has to end."""

    def __init__(
        self, loop: asyncio.AbstractEventLoop, options: Options, environment: Mapping[str, str]
    ) -> None:
        self.stopped = asyncio.Event()
        self._loop = loop
        self._options = options
        self._spools = options.data_dir / "spools"
        self._spools.mkdir(parents=True, exist_ok=True)
        self._figures = self._spools / f"{options.worker}.metrics.json"
        self._snapshot = SnapshotFile(options.data_dir / FILE_NAME, environment)
        self._spool = Spool(self._spools / f"{options.worker}.db")
        counters = Counters(options.worker)
        self.worker = Worker(loop, self._spool, counters, SystemRandom(), self._others)
        self._timers: dict[str, asyncio.TimerHandle] = {}
        self._server: asyncio.Server | None = None
        self._signalled = False

    async def start(self) -> None:
        """Accepts from now on, with a snapshot or without one."""
        self._poll_snapshot()
        listener = socket.socket(fileno=self._options.listener_fd)
        self._server = await self._loop.create_server(
            lambda: ClientConnection(self.worker), sock=listener, backlog=_BACKLOG
        )
        self._tick()
        self._write_figures()
        for number in (signal.SIGTERM, signal.SIGINT):
            self._loop.add_signal_handler(number, self._on_signal)
        if _is_held_by_parent(os.fstat(sys.stdin.fileno()).st_mode):
            self._loop.add_reader(sys.stdin.fileno(), self._on_parent)
        _log.info("accepting", extra={"fields": {"worker": self._options.worker}})

    async def drain(self) -> None:
        """Stops accepting, lets exchanges end within `drain_seconds`, and closes the spool."""
        if self._server is not None:
            self._server.close()
        self.worker.drain()
        await self._quiet(self._options.drain_seconds)
        for timer in self._timers.values():
            timer.cancel()
        self.worker.close()
        await self._quiet(_ABORT_SECONDS)
        await self._loop.run_in_executor(None, self._spool.close)
        self._figures.unlink(missing_ok=True)
        _log.info("ended", extra={"fields": {"worker": self._options.worker}})

    async def _quiet(self, seconds: float) -> None:
        """Waits until every connection has ended, with what it leaves to be recorded."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self.worker.quiet.wait()

    def _on_signal(self) -> None:
        if self._signalled:
            os._exit(1)
        self._signalled = True
        self.stopped.set()

    def _on_parent(self) -> None:
        if os.read(sys.stdin.fileno(), 4096) == b"":
            self._loop.remove_reader(sys.stdin.fileno())
            self.stopped.set()

    def _tick(self) -> None:
        self._timers["tick"] = self._loop.call_later(TICK_SECONDS, self._tick)
        self.worker.tick()

    def _poll_snapshot(self) -> None:
        self._timers["snapshot"] = self._loop.call_later(SNAPSHOT_SECONDS, self._poll_snapshot)
        routing = self._snapshot.poll()
        self.worker.counters.set("kingmaker_snapshot_failures_total", self._snapshot.failures)
        if routing is not None:
            self.worker.adopt(routing)
            _log.info("snapshot adopted", extra={"fields": {"version": routing.version}})

    def _write_figures(self) -> None:
        self._timers["figures"] = self._loop.call_later(FIGURES_SECONDS, self._write_figures)
        draft = self._figures.with_suffix(".draft")
        try:
            draft.write_bytes(msgspec.json.encode(self.worker.dump()))
            draft.replace(self._figures)
        except OSError as error:
            _log.warning("figures were not written", extra={"fields": {"error": str(error)}})

    def _others(self) -> list[Dump]:
        """What the other live workers wrote last."""
        oldest = time.time() - _FIGURES_AGE_SECONDS
        dumps = []
        for path in self._spools.glob("*.metrics.json"):
            try:
                if path != self._figures and path.stat().st_mtime >= oldest:
                    dumps.append(msgspec.json.decode(path.read_bytes(), type=Dump))
            except (OSError, msgspec.MsgspecError) as error:
                _log.warning(
                    "figures were not read", extra={"fields": {"path": path.name, "error": str(error)}}
                )
        return dumps


def _is_held_by_parent(mode: int) -> bool:
    """Whether standard input is a pipe, in one of the forms that asyncio gives a subprocess."""
    return stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode)
