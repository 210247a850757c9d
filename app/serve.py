"""The whole wiring: which parts a process runs, in which order they start, and how they stop."""

from __future__ import annotations

import asyncio
import logging
import signal
import socket
from collections.abc import Awaitable, Callable, Iterator
from contextlib import AsyncExitStack, contextmanager

import uvicorn
from rich.console import Console

from app.clock import now_ms
from app.control.context import Context
from app.control.declare import Author, Declared, Difference, declare
from app.control.documents import BadDeclaration, parse_route
from app.control.main import create_app, listener_problem
from app.control.places import Places
from app.db import keys, signing
from app.db.errors import DatabaseError
from app.db.migrate import migrate_database
from app.db.session import Database
from app.gateway.own import NOWHERE, Listeners, listeners_of
from app.jobs.schedule import Jobs
from app.listeners import is_loopback, listen, url_of
from app.locks import only_one
from app.publisher import Publisher
from app.settings import BadSettings, Settings, prepare_data_dir
from app.stores.first_arms import open_store
from app.supervisor import Supervisor, WorkersNotReady
from app.telemetry import configure
from policies.errors import IllegalTransition
from routing.errors import RoutingError

_REFUSALS = (
    *(BadSettings, BadDeclaration, DatabaseError, IllegalTransition, WorkersNotReady),
    *(RoutingError, OSError),  # of writing the lock and the snapshot: a full disk, a file of somebody else
)
_FILE = "file"
_FINISH_SECONDS = 5
"""How long calls of the control plane may take to end when it is to end."""

_log = logging.getLogger(__name__)

_Parts = Callable[[Settings, "_Stop", AsyncExitStack], Awaitable[None]]


def serve(settings: Settings) -> int:
    """Run everything on one machine until told to stop; gives the exit code."""
    return _run(settings, _everything)


def run_gateway(settings: Settings) -> int:
    """Run the gateway alone, from the snapshot in the data folder; gives the exit code."""
    return _run(settings, _gateway)


def run_control(settings: Settings) -> int:
    """Run the control plane alone; gives the exit code."""
    return _run(settings, _control)


def run_worker(settings: Settings) -> int:
    """Run the recorder, the learner and the evaluator alone; gives the exit code."""
    return _run(settings, _jobs)


class _Stop:
    """Why the process is to end: a signal, or a part that failed."""

    def __init__(self) -> None:
        self.event = asyncio.Event()
        self.hurry = asyncio.Event()
        self.failed = False

    def on_signal(self) -> None:
        """The first one ends the process; another one says that it takes too long."""
        if self.event.is_set():
            self.hurry.set()
        self.event.set()

    def watch(self, task: asyncio.Task[None]) -> None:
        """End the process when this part ends by itself."""
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        if task.cancelled() or self.event.is_set():
            return
        self.failed = True
        self.event.set()
        _log.error("part_failed", exc_info=task.exception(), extra={"fields": {"part": task.get_name()}})


def _run(settings: Settings, parts: _Parts) -> int:
    configure()
    return asyncio.run(_until_stopped(settings, parts))


async def _until_stopped(settings: Settings, parts: _Parts) -> int:
    stop = _Stop()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.on_signal)
    try:
        prepare_data_dir(settings.data_dir)
        async with AsyncExitStack() as stack:
            try:
                await parts(settings, stop, stack)
                await stop.event.wait()
            finally:
                stop.event.set()  # whatever ends from here on was told to
    except _REFUSALS as error:
        Console(stderr=True, soft_wrap=True, highlight=False).print(f"kingmaker: {error}", markup=False)
        return 1
    return 1 if stop.failed else 0


async def _everything(settings: Settings, stop: _Stop, stack: AsyncExitStack) -> None:
    for part in ("gateway", "control", "worker"):
        stack.enter_context(only_one(settings.data_dir, part))
    database = await _open_database(settings, stack)
    await _require_keys(settings, database)
    control = await _listen(settings, settings.control_port, stack)
    gateway = await _listen(settings, settings.gateway_port, stack)
    places = Places.of(settings.gateway, listeners_of(control, gateway))
    await _start_control(settings, database, control, places, stop, stack)
    await _start_jobs(settings, database, stop, stack, is_last=True)  # what starts last ends first
    await _start_gateway(settings, gateway, stop, stack, listeners_of(control))
    _say(f"gateway        {url_of(gateway)}", _said_of_control(control))


async def _gateway(settings: Settings, stop: _Stop, stack: AsyncExitStack) -> None:
    stack.enter_context(only_one(settings.data_dir, "gateway"))
    gateway = await _listen(settings, settings.gateway_port, stack)
    await _start_gateway(settings, gateway, stop, stack)
    _say(f"gateway        {url_of(gateway)}")


async def _control(settings: Settings, stop: _Stop, stack: AsyncExitStack) -> None:
    stack.enter_context(only_one(settings.data_dir, "control"))
    database = await _open_database(settings, stack)
    await _require_keys(settings, database)
    control = await _listen(settings, settings.control_port, stack)
    places = Places.of(settings.gateway, listeners_of(control))
    await _start_control(settings, database, control, places, stop, stack)
    _say(_said_of_control(control))


async def _jobs(settings: Settings, stop: _Stop, stack: AsyncExitStack) -> None:
    stack.enter_context(only_one(settings.data_dir, "worker"))
    database = await _open_database(settings, stack)
    await _start_jobs(settings, database, stop, stack)
    _say("recorder, learner and evaluator run")


async def _open_database(settings: Settings, stack: AsyncExitStack) -> Database:
    await migrate_database(settings.database)
    database = Database(settings.database)
    stack.push_async_callback(database.close)
    async with database.transaction() as connection:
        await signing.ensure_key(connection, now_ms())
    return database


async def _require_keys(settings: Settings, database: Database) -> None:
    """Refuse to be reached by strangers as long as nobody has a key.

    Raises:
        BadSettings: that is so.
    """
    if problem := listener_problem(settings.host, await _has_keys(database)):
        raise BadSettings(problem)


async def _has_keys(database: Database) -> bool:
    async with database.read() as connection:
        return await keys.any_keys(connection)


async def _listen(settings: Settings, port: int, stack: AsyncExitStack) -> socket.socket:
    listener = await listen(settings.host, port)
    stack.callback(listener.close)
    return listener


async def _start_control(
    settings: Settings,
    database: Database,
    listener: socket.socket,
    places: Places,
    stop: _Stop,
    stack: AsyncExitStack,
) -> None:
    await _apply_config(settings, database, places)
    publisher = Publisher(database, settings.data_dir)
    first_arms = open_store(settings.data_dir, settings.redis_url)
    stack.push_async_callback(first_arms.close)
    keyless = is_loopback(settings.host)
    context = Context(database, publisher, keyless=keyless, places=places, first_arms=first_arms)
    await context.publisher.publish()
    if not await _has_keys(database):
        _say("no API key is configured: everybody on this machine may change routes (kingmaker keys create)")
    config = uvicorn.Config(
        create_app(context),
        log_config=None,
        server_header=False,
        timeout_graceful_shutdown=_FINISH_SECONDS,
    )
    server = _ControlServer(config)
    task = asyncio.create_task(server.serve([listener]), name="control")
    stop.watch(task)
    stack.push_async_callback(_stop_control, server, task)


def _said_of_control(listener: socket.socket) -> str:
    url = url_of(listener)
    return f"control plane  {url}  (API at {url}/docs)"


async def _stop_control(server: uvicorn.Server, task: asyncio.Task[None]) -> None:
    server.should_exit = True
    await task


async def _start_jobs(
    settings: Settings, database: Database, stop: _Stop, stack: AsyncExitStack, *, is_last: bool = False
) -> None:
    publisher = Publisher(database, settings.data_dir)
    jobs = Jobs(database, settings.data_dir, publisher.publish, is_last=is_last)
    ended = asyncio.Event()
    task = asyncio.create_task(jobs.run(ended), name="jobs")
    stop.watch(task)
    stack.push_async_callback(_stop_jobs, ended, task)


async def _stop_jobs(ended: asyncio.Event, task: asyncio.Task[None]) -> None:
    ended.set()
    await task


async def _start_gateway(
    settings: Settings, listener: socket.socket, stop: _Stop, stack: AsyncExitStack, own: Listeners = NOWHERE
) -> None:
    data_dir, workers = settings.data_dir, settings.workers
    redis_url = settings.redis_url
    supervisor = Supervisor(data_dir, listener, workers, settings.gateway, own, stop.hurry, redis_url)
    stack.push_async_callback(supervisor.stop)
    await supervisor.start()


async def _apply_config(settings: Settings, database: Database, places: Places) -> None:
    """Put the routes of the configuration file into force: all of them, or none and a refusal."""
    if settings.config is None:
        return
    specs = [parse_route(document) for document in settings.routes]
    for spec in specs:
        await places.require_route(spec)
    author = Author(_FILE, now_ms(), f"declared in {settings.config.name}")
    async with database.transaction() as connection:
        declared = [await declare(connection, spec, author, retire_missing=False) for spec in specs]
    for one in declared:
        _say(*(_kept(one, field) for field in one.kept))


def _kept(declared: Declared, field: Difference) -> str:
    here = f"{declared.route.name}: {field.field}"
    return f"{here} stays {field.before} (the file says {field.after}; kingmaker apply --take-over moves it)"


class _ControlServer(uvicorn.Server):
    """A uvicorn server that leaves signals to the process it is part of."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave the handlers alone."""
        yield


def _say(*lines: str) -> None:
    console = Console(soft_wrap=True, highlight=False)
    for line in lines:
        console.print(f"kingmaker: {line}", markup=False)
