"""Fixtures of the command line's tests: one whole server, and routes of their own on it."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import count

import pytest

from tests.app.cli.programs import Server, Session

_numbers = count(1)


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """`kingmaker serve` on free ports, told where by flags."""
    data_dir = str(tmp_path_factory.mktemp("serve") / "data")
    with Server("serve", "--gateway-port", "0", "--control-port", "0", "--data-dir", data_dir) as running:
        yield running


@pytest.fixture
def kingmaker(server: Server) -> Session:
    """The command line, pointed at the server."""
    return Session(server)


@pytest.fixture
def name() -> str:
    """A name that no other route has."""
    return f"route-{next(_numbers)}"


@pytest.fixture
def route(kingmaker: Session, name: str) -> str:
    """A route with all traffic on its champion `old`, and `new` beside it."""
    kingmaker.ok("apply", "-f", "-", text=declared(name))
    return name


def declared(name: str, window: str = "24h", more: str = "") -> str:
    """A route as a file has it; `more` is added at its end."""
    return f"""
route: {name}
arms:
  - {{name: old, url: "http://127.0.0.1:9001/score", role: champion}}
  - {{name: new, url: "http://127.0.0.1:9002/score", labels: {{owner: "[team]"}}}}
split: {{weights: {{old: 10000}}}}
metrics: [{{name: conversion, kind: binary, window: {window}}}]
{more}"""
