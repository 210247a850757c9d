"""Fixtures of the tests with OpenFeature's own providers."""

from __future__ import annotations

import asyncio
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.app.product import Product, Server, environment, kingmaker
from tests.openfeature.packages import Missing, prepare
from tests.openfeature.programs import Programs
from tests.openfeature.routes import ROUTES


@pytest.fixture(scope="session")
def packages() -> Path:
    """OpenFeature's JavaScript packages."""
    try:
        return prepare()
    except Missing as missing:
        pytest.skip(str(missing))


@pytest.fixture
def programs(packages: Path, tmp_path: Path) -> Programs:
    """A folder in which JavaScript programs find those packages."""
    folder = tmp_path / "programs"
    folder.mkdir()
    (folder / "node_modules").symlink_to(packages)
    (folder / "package.json").write_text('{"type": "module"}')
    return Programs(folder)


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A running installation; each test that counts has a route of its own."""
    product = Product(tmp_path_factory.mktemp("openfeature"))
    yield asyncio.run(product.serve(routes=ROUTES))
    asyncio.run(product.close())


@pytest.fixture(scope="session")
def empty_gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URL of a gateway to which no control plane has given a snapshot yet."""
    flags = ["--gateway-port", "0", "--data-dir", str(tmp_path_factory.mktemp("empty"))]
    command = [kingmaker(), "gateway", *flags]
    with subprocess.Popen(command, env=environment(), stdout=subprocess.PIPE, text=True) as gateway:
        assert gateway.stdout is not None
        try:
            yield gateway.stdout.readline().split()[-1]
        finally:
            gateway.terminate()
