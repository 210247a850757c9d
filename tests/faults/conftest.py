"""Fixtures of fault tests."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.app.product import Product


@pytest.fixture
async def product(tmp_path: Path) -> AsyncIterator[Product]:
    """A folder for servers and their data; nothing of them runs afterwards."""
    product = Product(tmp_path)
    yield product
    await product.close()
