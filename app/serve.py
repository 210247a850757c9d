"""The whole wiring: which parts a process runs, in which order they start, and how they stop."""

from __future__ import annotations

import asyncio
import logging
import signal
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
from app.jobs.schedule import Jobs
from app.listeners import is_loopback, listen, url_of
from app.locks import only_one
from app.publisher import Publisher
from app.settings import BadSettings, Settings, prepare_data_dir
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
    """Run the recorder and the evaluator alone; gives the exit code."""
    return _run(settings, _jobs)


class _Stop:
    """Why the process is to end: a signal, or a part that failed."""

    def __init__(self) -> None:
        self.event = asyncio.Event()
        self.failed = False

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
        loop.add_signal_handler(number, stop.event.set)
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
    control = await _start_control(settings, database, stop, stack)
    await _start_jobs(settings, database, stop, stack)
    gateway = await _start_gateway(settings, stack)
    _say(f"gateway        {gateway}", f"control plane  {control}  (API at {control}/docs)")


async def _gateway(settings: Settings, stop: _Stop, stack: AsyncExitStack) -> None:
    stack.enter_context(only_one(settings.data_dir, "gateway"))
    _say(f"gateway        {await _start_gateway(settings, stack)}")


async def _control(settings: Settings, stop: _Stop, stack: AsyncExitStack) -> None:
    stack.enter_context(only_one(settings.data_dir, "control"))
    database = await _open_database(settings, stack)
    control = await _start_control(settings, database, stop, stack)
    _say(f"control plane  {control}  (API at {control}/docs)")


async def _jobs(settings: Settings, stop: _Stop, stack: AsyncExitStack) -> None:
    stack.enter_context(only_one(settings.data_dir, "worker"))
    database = await _open_database(settings, stack)
    await _start_jobs(settings, database, stop, stack)
    _say("recorder and evaluator run")


async def _open_database(settings: Settings, stack: AsyncExitStack) -> Database:
    await migrate_database(settings.database)
    database = Database(settings.database)
    stack.push_async_callback(database.close)
    async with database.transaction() as connection:
        await signing.ensure_key(connection, now_ms())
    return database


async def _start_control(settings: Settings, database: Database, stop: _Stop, stack: AsyncExitStack) -> str:
    async with database.read() as connection:
        has_keys = await keys.any_keys(connection)
    if problem := listener_problem(settings.host, has_keys):
        raise BadSettings(problem)
    await _apply_config(settings, database)
    publisher, places = Publisher(database, settings.data_dir), Places.of(settings.gateway)
    context = Context(database, publisher, keyless=is_loopback(settings.host), places=places)
    await context.publisher.publish()
    listener = await listen(settings.host, settings.control_port)
    if not has_keys:
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
    return url_of(listener)


async def _stop_control(server: uvicorn.Server, task: asyncio.Task[None]) -> None:
    server.should_exit = True
    await task


async def _start_jobs(settings: Settings, database: Database, stop: _Stop, stack: AsyncExitStack) -> None:
    jobs = Jobs(database, settings.data_dir, Publisher(database, settings.data_dir).publish)
    ended = asyncio.Event()
    task = asyncio.create_task(jobs.run(ended), name="jobs")
    stop.watch(task)
    stack.push_async_callback(_stop_jobs, ended, task)


async def _stop_jobs(ended: asyncio.Event, task: asyncio.Task[None]) -> None:
    ended.set()
    await task


async def _start_gateway(settings: Settings, stack: AsyncExitStack) -> str:
    listener = await listen(settings.host, settings.gateway_port)
    supervisor = Supervisor(settings.data_dir, listener, settings.workers, settings.gateway)
    stack.push_async_callback(supervisor.stop)
    await supervisor.start()
    return url_of(listener)


async def _apply_config(settings: Settings, database: Database) -> None:
    """Put the routes of the configuration file into force: all of them, or none and a refusal."""
    if settings.config is None:
        return
    specs = [parse_route(document) for document in settings.routes]
    for spec in specs:
        await Places.of(settings.gateway).require_route(spec)
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
