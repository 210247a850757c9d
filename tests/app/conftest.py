"""Fixtures of tests of the whole product."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from tests.app.product import Product
from tests.app.stores.stage import RedisServer, running_redis


@pytest.fixture
def redis_server(tmp_path: Path) -> Iterator[RedisServer]:
    """A Redis of this test's own."""
    with running_redis(tmp_path) as server:
        yield server


@pytest.fixture
async def product(tmp_path: Path) -> AsyncIterator[Product]:
    """A folder for servers and their data; nothing of them runs afterwards."""
    product = Product(tmp_path)
    yield product
    await product.close()
