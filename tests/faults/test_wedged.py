"""Claims about a worker that neither works nor ends: it is replaced, and others do not suffer from it."""

from __future__ import annotations

import os
import signal

from tests.app.product import Product, route, until
from tests.faults.load import Load


async def test_a_wedged_worker_is_replaced(product: Product) -> None:
    """Of two, one stands still: the callers of the other go on, and its own are cut off and answered anew."""
    old, new = await product.arm("old"), await product.arm("new")
    server = await product.serve("--workers", "2", routes=[route(old, new)])
    load = Load()
    async with load.on(server, 16):
        await until(lambda: load.answered > 200)
        wedged = server.workers()[0]
        os.kill(wedged, signal.SIGSTOP)
        seen = load.answered
        await until(lambda: load.answered > seen + 200)
        assert wedged in server.workers()
        await until(lambda: wedged not in server.workers() and len(server.workers()) == 2)
        seen = load.answered
        await until(lambda: load.answered > seen + 200)
    assert load.wrong == []
    assert len(load.cut) <= 16
    assert '"event":"worker_wedged"' in server.stderr
    assert (await server.stop()).code == 0
