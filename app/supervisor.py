"""Keeps the gateway's worker processes running, and replaces them: dead, wedged, or old.

Each is a process of its own, so that nothing computed elsewhere can stall a request. One that ends by itself,
or is silent for too long, is followed by another; on SIGHUP all are, in turn, without a request lost.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import socket
from collections.abc import Coroutine, Iterable
from itertools import chain, count
from pathlib import Path

from app.gateway.options import DEFAULTS, Options
from app.gateway.own import NOWHERE, Listeners
from app.gateway.settings import GatewaySettings
from app.listeners import beside, divided
from app.worker_process import WorkerProcess, WorkersNotReady

__all__ = ["Supervisor", "WorkersNotReady"]

SILENCE_SECONDS = 5.0
"""A worker that has said nothing for so long is wedged: it says each second that its loop turns."""

_LOOK_SECONDS = 0.5
_ABSENCE_SECONDS = 2.0
_MARGIN_SECONDS = 2.0
_FIRST_PAUSE_SECONDS = 0.1
_LONGEST_PAUSE_SECONDS = 5.0

_log = logging.getLogger(__name__)


class Place:
    """One of the workers there are to be, whichever process it is at the moment.

    Mutable state: `process`; `listener`, its socket; `pause`, how long the next start is put off.
    """

    def __init__(self, name: str, listener: socket.socket) -> None:
        self.name = name
        self.listener = listener
        self.process: WorkerProcess | None = None
        self.pause = _FIRST_PAUSE_SECONDS
        self.turn = asyncio.Lock()

    def next_pause(self) -> float:
        """How long to wait now; the next time it is longer."""
        pause, self.pause = self.pause, min(2 * self.pause, _LONGEST_PAUSE_SECONDS)
        return pause

    @property
    def works(self) -> bool:
        """Whether somebody accepts here."""
        return self.process is not None and self.process.is_running and not self.process.leaving.is_set()


class Supervisor:
    """The workers `w0`, `w1`, … of one address. Owns the listener, and those that it makes beside it.

    `own` is where else this installation listens: there no arm is called either. `hurry` ends the time
    of lame ducks.
    The sockets stay open here whatever becomes of the workers, so who has connected waits for the next one.
    Mutable state: the places, every process that may run, the tasks that look after them.
    """

    def __init__(
        self,
        data_dir: Path,
        listener: socket.socket,
        workers: int,
        settings: GatewaySettings = DEFAULTS,
        own: Listeners = NOWHERE,
        hurry: asyncio.Event | None = None,
        redis_url: str | None = None,
    ) -> None:
        self._data_dir = data_dir
        self._redis_url = redis_url
        self._hurry = hurry or asyncio.Event()
        self._settings = settings
        self._own = own
        sockets = divided(listener, workers)
        self._places = [Place(f"w{index}", socket) for index, socket in enumerate(sockets)]
        self._processes: list[WorkerProcess] = []
        self._tasks: set[asyncio.Task[None]] = set()
        self._watchdog: asyncio.Task[None] | None = None
        self._wanted = asyncio.Event()
        self._is_started = False
        self._stopping = False
        self._terminal = signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN and _has_terminal()

    async def start(self) -> None:
        """Start every worker and wait until each accepts connections; from then on SIGHUP replaces them.

        Raises:
            WorkersNotReady: one of them ended or said nothing for half a minute.
            OSError: the system refuses another process.
        """
        self._watchdog = asyncio.create_task(self._watch())
        for place in self._places:
            await self._fill(place)
        self._is_started = True
        self._begin(self._replace_when_wanted())
        asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, self._on_hangup)

    def restart(self) -> None:
        """Replace every worker by a new one: one at a time, each only when the new one is ready.

        Asked for again meanwhile, it is done again afterwards. A new worker that does not get ready ends it,
        and the old ones stay.
        """
        self._wanted.set()

    async def stop(self) -> None:
        """Let every worker finish its exchanges, then end; what is still there after that is killed.

        For `lame_duck_seconds` before that they answer whoever comes, but say that they are not ready.
        """
        self._stopping = True
        asyncio.get_running_loop().remove_signal_handler(signal.SIGHUP)
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._is_started and self._settings.lame_duck_seconds:
            await self._be_lame_ducks(self._settings.lame_duck_seconds)
        for place in self._places:
            place.listener.close()
        await self._end(self._processes)
        if self._watchdog is not None:
            self._watchdog.cancel()

    async def _be_lame_ducks(self, seconds: float) -> None:
        """Balancers are to find out by themselves, each in its time, that they must ask others.

        It is over when no worker is left. A place without one takes no more connections meanwhile.
        """
        _log.info("lame_duck", extra={"fields": {"workers": len(self._places), "seconds": seconds}})
        in_place = [place.process for place in self._places]
        for process in self._processes:
            if process not in in_place and process.is_running:
                process.drain()
        left = asyncio.gather(*map(self._until_left, self._places))
        hurry = asyncio.ensure_future(self._hurry.wait())
        await asyncio.wait((left, hurry), timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
        left.cancel()
        hurry.cancel()
        await asyncio.gather(left, hurry, return_exceptions=True)

    async def _until_left(self, place: Place) -> None:
        """A lame duck in this place; when it has ended, nobody shall wait for another one."""
        process = place.process
        if process is not None and process.is_running:
            process.be_lame_duck()
            await process.ended()
        if not any(other.works and other.listener is place.listener for other in self._places):
            place.listener.close()

    async def _fill(self, place: Place) -> None:
        """Put a new worker into a place, beside the one that is there."""
        process = await self._spawn(place)
        place.process = process
        self._begin(self._follow(place, process))

    async def _spawn(self, place: Place) -> WorkerProcess:
        self._processes = [process for process in self._processes if process.is_running]
        taken = {process.name for process in self._processes}
        names = chain([place.name], (f"{place.name}.{number}" for number in count(1)))
        name = next(name for name in names if name not in taken)  # and so a spool and figures of its own
        options = Options(
            self._data_dir,
            name,
            place.listener.fileno(),
            self._settings,
            own=self._own,
            redis_url=self._redis_url,
        )
        process = await WorkerProcess.start(options)
        self._processes.append(process)
        try:
            await process.ready()
        except WorkersNotReady:
            await process.ended()
            raise
        return process

    async def _follow(self, place: Place, process: WorkerProcess) -> None:
        """When a worker ends or is about to, put another into its place, unless that was why it is."""
        await process.leaving.wait()
        async with place.turn:
            if place.process is process:
                await self._refill(place, process)

    async def _refill(self, place: Place, process: WorkerProcess) -> None:
        lived = asyncio.get_running_loop().time() - process.started_at
        if lived > _LONGEST_PAUSE_SECONDS:
            place.pause = _FIRST_PAUSE_SECONDS
        pause = place.next_pause()
        if process.is_running:
            _log.info("worker_leaves", extra={"fields": {"worker": process.name}})
        else:
            fields = {"worker": process.name, "code": await process.ended(), "pause_seconds": pause}
            _log.error("worker_ended", extra={"fields": fields})
        while True:
            await asyncio.sleep(pause)
            try:
                return await self._fill(place)
            except (OSError, WorkersNotReady) as error:
                pause = place.next_pause()
                fields = {"worker": place.name, "error": str(error), "pause_seconds": pause}
                _log.error("worker_not_ready", extra={"fields": fields})
                self._give_way(place)

    def _give_way(self, place: Place) -> None:
        """Have no connections sent to a place where nobody may come soon, while others work."""
        if not any(other.works and other.listener is not place.listener for other in self._places):
            return
        try:
            fresh = beside(place.listener)
        except OSError as error:
            _log.error(
                "place_keeps_its_socket", extra={"fields": {"worker": place.name, "error": str(error)}}
            )
            return
        place.listener.close()
        place.listener = fresh

    async def _replace_when_wanted(self) -> None:
        while True:
            await self._wanted.wait()
            self._wanted.clear()
            _log.info("workers_are_replaced", extra={"fields": {"workers": len(self._places)}})
            for place in self._places:
                if not place.turn.locked() and not await self._replace(place):
                    break

    async def _replace(self, place: Place) -> bool:
        """Start a worker beside the one of a place, then have that one end; False when the new one cannot."""
        async with place.turn:
            old = place.process
            try:
                await self._fill(place)
            except (OSError, WorkersNotReady) as error:
                fields = {"worker": place.name, "error": str(error)}
                _log.error("worker_not_replaced", extra={"fields": fields})
                return False
        if old is not None:
            await self._end([old])
        _log.info("worker_replaced", extra={"fields": {"worker": place.name}})
        return True

    async def _end(self, processes: Iterable[WorkerProcess]) -> None:
        """Have workers finish and end; those that take too long are killed."""
        running = [process for process in processes if process.is_running]
        for process in running:
            process.drain()
        ended = asyncio.gather(*(process.ended() for process in running))
        try:
            async with asyncio.timeout(self._settings.drain_seconds + _MARGIN_SECONDS):
                await asyncio.shield(ended)
        except TimeoutError:
            for process in running:
                process.kill()
            await ended

    async def _watch(self) -> None:
        """Kill workers that are wedged. After an absence of our own (a machine that slept) all get time."""
        loop = asyncio.get_running_loop()
        looked_at = loop.time()
        while True:
            await asyncio.sleep(_LOOK_SECONDS)
            now, before = loop.time(), looked_at
            looked_at = now
            for process in self._processes:
                if now - before > _ABSENCE_SECONDS:
                    process.heard_at = now
                elif process.is_ready and process.is_running and now - process.heard_at > SILENCE_SECONDS:
                    fields = {"worker": process.name, "silent_seconds": round(now - process.heard_at, 1)}
                    _log.error("worker_wedged", extra={"fields": fields})
                    process.kill()
                    process.heard_at = now

    def _on_hangup(self) -> None:
        if self._terminal and not _has_terminal():
            signal.raise_signal(signal.SIGTERM)  # it was no request: the terminal that we ran in is gone
        else:
            self.restart()

    def _begin(self, work: Coroutine[object, object, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._on_done)

    def _on_done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and task.exception() is not None:
            _log.error("supervision_failed", exc_info=task.exception())


def _has_terminal() -> bool:
    """Whether this process is part of a session at a terminal, which tells it by SIGHUP when it is closed."""
    try:
        os.close(os.open("/dev/tty", os.O_RDONLY | os.O_NOCTTY))
    except OSError:
        return False
    return True
