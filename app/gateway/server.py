"""A worker's life: accepts on the socket it was given, takes new snapshots, drains, loses nothing."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import socket
import time
from collections.abc import Mapping
from random import Random, SystemRandom
from typing import cast

import msgspec

from app.events.spool import Spool
from app.gateway.access import AccessLog
from app.gateway.counters import Counters
from app.gateway.draws import Draws
from app.gateway.dumps import Dump
from app.gateway.first_arms import FirstArms
from app.gateway.http1 import ClientConnection
from app.gateway.journal import Journal
from app.gateway.kills import FILE_NAME as KILLS_NAME
from app.gateway.kills import KillFile, with_kill_switches
from app.gateway.options import Options
from app.gateway.own import listeners_of
from app.gateway.parent import ALIVE, ALIVE_SECONDS, DRAINING, LAME_DUCK_SIGNAL, READY, Parent
from app.gateway.snapshots import FILE_NAME, Routing, SnapshotFile, routing_of
from app.gateway.tracing import Tracing
from app.gateway.trust import Trust
from app.gateway.worker import TICK_SECONDS, Worker
from app.listeners import BACKLOG
from app.stores.first_arms import open_store

FILES_SECONDS = 0.1
FIGURES_SECONDS = 1.0
_LAST_CALL_SECONDS = 0.05
_ABORT_SECONDS = 1.0
_FIGURES_AGE_SECONDS = 10.0
_STORE_SECONDS = 1.0
"""How long a worker waits for the store of first arms before it takes callers in."""

_log = logging.getLogger(__name__)


async def serve(options: Options, environment: Mapping[str, str], parent: Parent) -> None:
    """Runs one worker until SIGTERM, SIGINT, or the end of its parent.

    Raises:
        SpoolError: the spool cannot be opened.
        OSError: the inherited socket cannot be used.
    """
    life = Life(asyncio.get_running_loop(), options, environment, parent)
    await life.start()
    await life.stopped.wait()
    await life.drain()


class Life:
    """One worker's life. `stopped` is set when it has to end.

    Mutable state: the snapshot as it was published, and which local kill switches were laid over it.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        options: Options,
        environment: Mapping[str, str],
        parent: Parent,
    ) -> None:
        self.stopped = asyncio.Event()
        self._loop = loop
        self._options = options
        self._environment = environment
        self._parent = parent
        self._spools = options.data_dir / "spools"
        self._spools.mkdir(parents=True, exist_ok=True)
        self._figures = self._spools / f"{options.worker}.metrics.json"
        self._snapshot = SnapshotFile(options.data_dir / FILE_NAME, environment)
        self._kills = KillFile(options.data_dir / KILLS_NAME)
        self._published: Routing | None = None
        self._killed: frozenset[str] = frozenset()
        self._keeping: asyncio.Future[None] | None = None
        self._spool = Spool(self._spools / f"{options.worker}.db")
        self._listener = socket.socket(fileno=options.listener_fd)
        settings, counters = options.settings, Counters(options.worker)
        self._journal = Journal(
            self._spool, counters, Trust(settings), _access_log(options), _tracing(options)
        )
        self._first_arms = FirstArms(
            loop, open_store(options.data_dir, options.redis_url), counters, settings.first_arm_seconds
        )
        self.worker = Worker(
            loop,
            self._spool,
            counters,
            Draws(),
            self._others,
            settings,
            self._journal,
            own=listeners_of(self._listener) | options.own,
            first_arms=self._first_arms,
        )
        self._timers: dict[str, asyncio.TimerHandle] = {}
        self._server: asyncio.Server | None = None
        self._signalled = False

    async def start(self) -> None:
        """Accepts from now on, with a snapshot or without one, and says so."""
        self._look_at_files()
        await self._first_arms.ready(_STORE_SECONDS)
        self._server = await self._loop.create_server(
            lambda: cast(asyncio.Protocol, ClientConnection(self.worker)),
            sock=self._listener,
            backlog=BACKLOG,
        )
        self._tick()
        self._write_figures()
        signal.signal(signal.SIGHUP, signal.SIG_IGN)  # a terminal tells the whole group what is the parent's
        for number in (signal.SIGTERM, signal.SIGINT):
            self._loop.add_signal_handler(number, self._on_signal)
        self._loop.add_signal_handler(LAME_DUCK_SIGNAL, self.worker.part)
        self._parent.watch(self._loop, self.stopped.set)
        self._parent.say(READY)
        self._say_alive()
        _log.info("accepting", extra={"fields": {"worker": self._options.worker}})

    async def drain(self) -> None:
        """Says that it is not ready, stops accepting, lets exchanges end within `drain_seconds`, and ends."""
        self._parent.say(DRAINING)
        self.worker.drain()
        await asyncio.sleep(_LAST_CALL_SECONDS)  # who has been waiting to be accepted still is
        if self._server is not None:
            self._server.close()
        await self._quiet(self._options.settings.drain_seconds)
        for timer in self._timers.values():
            timer.cancel()
        self.worker.close()
        await self._quiet(_ABORT_SECONDS)
        await self._first_arms.close()
        await self._loop.run_in_executor(None, self._spool.close)
        await self._loop.run_in_executor(None, self._journal.close)
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

    def _say_alive(self) -> None:
        self._timers["alive"] = self._loop.call_later(ALIVE_SECONDS, self._say_alive)
        self._parent.say(ALIVE)

    def _tick(self) -> None:
        self._timers["tick"] = self._loop.call_later(TICK_SECONDS, self._tick)
        self.worker.tick()

    def _look_at_files(self) -> None:
        """Routes by what the snapshot and the local kill switches now come to."""
        self._timers["files"] = self._loop.call_later(FILES_SECONDS, self._look_at_files)
        fresh = self._snapshot.poll()
        published = fresh or self._published
        if published is not None:
            killed = self._kills.in_force(published.table.snapshot, time.time_ns() // 1_000_000)
            if fresh is not None or killed != self._killed:
                self._adopt(published, killed)
        if not self._snapshot.is_kept and (self._keeping is None or self._keeping.done()):
            self._keeping = self._loop.run_in_executor(None, self._snapshot.keep)
        self._count_files()

    def _adopt(self, published: Routing, killed: frozenset[str]) -> None:
        routing = published
        if killed:
            routing = routing_of(with_kill_switches(published.table.snapshot, killed), self._environment)
        self.worker.adopt(routing)
        for route in killed ^ self._killed:
            self.worker.counters.set("kingmaker_local_kill_switch", route in killed, "route", route)
            _log.warning("local kill switch", extra={"fields": {"route": route, "on": route in killed}})
        if published is not self._published:
            _log.info("snapshot adopted", extra={"fields": {"version": routing.version}})
        self._published, self._killed = published, killed

    def _count_files(self) -> None:
        counters = self.worker.counters
        counters.set("kingmaker_snapshot_failures_total", self._snapshot.failures)
        counters.set("kingmaker_local_kill_refusals_total", self._kills.refusals)
        if self._published is not None:
            made_at = self._published.table.snapshot.created_at_ms / 1_000
            counters.set("kingmaker_snapshot_age_seconds", time.time() - made_at)

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


def _access_log(options: Options) -> AccessLog | None:
    target = options.settings.access_log
    return None if target is None else AccessLog(target, options.stdout_fd)


def _tracing(options: Options) -> Tracing | None:
    settings = options.settings
    if settings.traces is None:
        return None
    return Tracing(
        settings.traces,
        settings.trace_ratio,
        options.worker,
        Random(SystemRandom().getrandbits(64)),  # noqa: S311 - ids of traces are no secrets
    )
