"""Claims about a gateway whose other half is gone: it goes on from its last snapshot, and loses nothing."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager

from tests.app.product import Product, Server, converted, counted, eventually, route, units, until


async def _two_arms(product: Product, *flags: str) -> Server:
    old, new = await product.arm("old"), await product.arm("new")
    return await product.serve(*flags, routes=[route(old, new)])


async def _ask_and_report(server: Server, users: list[str]) -> dict[str, str]:
    """The users' arms; each one's outcome is acknowledged."""
    arms = {}
    async with server.caller() as caller:
        for user in users:
            arms[user], token = await caller.decide(user)
            assert (await caller.report([converted(token)])).status == 202
    return arms


@contextmanager
def _stopped(server: Server) -> Iterator[None]:
    """The main process stands still, and with it control plane, recorder, evaluator and supervisor."""
    server.process.send_signal(signal.SIGSTOP)
    try:
        yield
    finally:
        server.process.send_signal(signal.SIGCONT)


async def test_workers_go_on_while_the_main_process_stands_still(product: Product) -> None:
    """Nothing but themselves can stall them: requests are answered by the same arms, outcomes acknowledged,
    and when the rest goes on, everything is counted."""
    server = await _two_arms(product)
    assert server.process.pid not in server.workers()
    before = await _ask_and_report(server, units(20))
    with _stopped(server):
        during = await _ask_and_report(server, units(20))
    assert during == before
    await eventually(server.totals, lambda totals: counted(totals).n == 40)


async def test_what_was_acknowledged_meanwhile_outlives_everything(product: Product) -> None:
    """Everything is killed before the recorder could go on, and a start with fewer workers finds it all."""
    server = await _two_arms(product, "--workers", "2")
    with _stopped(server):
        for number in range(6):
            await _ask_and_report(server, units(10, f"n{number}-"))
        server.kill()
    again = await product.serve()
    await eventually(again.totals, lambda totals: counted(totals).n == 60)
    assert counted(await again.totals()).decisions == 60


async def test_a_worker_starts_from_the_last_snapshot_without_a_database(product: Product) -> None:
    """With the database gone, a worker that is started again answers as before, and takes outcomes."""
    server = await _two_arms(product)
    before = await _ask_and_report(server, units(20))
    for path in server.data_dir.glob("kingmaker.db*"):
        path.rename(product.folder / path.name)
    [killed] = server.workers()
    os.kill(killed, signal.SIGKILL)
    await until(lambda: server.workers() not in ([], [killed]))
    assert await _ask_and_report(server, units(20)) == before
    assert (await server.stop()).code == 0
