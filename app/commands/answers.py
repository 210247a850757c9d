"""How does a command ask, and how does it show the answer: drawn for people, or as one JSON document?"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

import typer
from rich.console import RenderableType

from app.tables import render

if TYPE_CHECKING:
    from app.client import ControlPlane


def connect(server: str, key: str | None) -> ControlPlane:
    """The control plane at a URL; nothing is sent yet."""
    from app.client import ControlPlane  # noqa: PLC0415  # httpx is slow to load: only when it is used

    return ControlPlane(server, key)


def show(answer: Any, as_json: bool, draw: Callable[[Any], Iterable[RenderableType]]) -> None:
    """Print an answer, drawn for people or else whole."""
    if as_json:
        typer.echo(json.dumps(answer, indent=2, allow_nan=False))
    else:
        typer.echo(render(*draw(answer)))
