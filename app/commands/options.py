"""Which options do several commands share? Each is a flag or else its KINGMAKER_* variable."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from app.settings import DEFAULT_DATA_DIR

DEFAULT_SERVER = "http://127.0.0.1:8081"
DATA_DIR = DEFAULT_DATA_DIR

Json = Annotated[bool, typer.Option("--json", help="Answer with one JSON document.")]
Server = Annotated[
    str,
    typer.Option("--server", metavar="URL", envvar="KINGMAKER_SERVER", help="Where the control plane is."),
]
Key = Annotated[
    str | None,
    typer.Option(
        "--key",
        metavar="KEY",
        envvar="KINGMAKER_KEY",
        show_default=False,
        help="An API key, where one is needed.",
    ),
]
Route = Annotated[str, typer.Argument(metavar="ROUTE", show_default=False, help="The route's name.")]

Config = Annotated[
    Path | None,
    typer.Option(
        "--config",
        metavar="FILE",
        envvar="KINGMAKER_CONFIG",
        show_default=False,
        help="A file of routes to apply first.",
    ),
]
Host = Annotated[
    str,
    typer.Option("--host", metavar="ADDRESS", envvar="KINGMAKER_HOST", help="Which address to listen on."),
]
GatewayPort = Annotated[
    int,
    typer.Option(
        "--gateway-port",
        metavar="PORT",
        envvar="KINGMAKER_GATEWAY_PORT",
        help="The gateway's port; 0 takes any.",
    ),
]
ControlPort = Annotated[
    int,
    typer.Option(
        "--control-port",
        metavar="PORT",
        envvar="KINGMAKER_CONTROL_PORT",
        help="The control plane's port; 0 takes any.",
    ),
]
DataDir = Annotated[
    Path,
    typer.Option(
        "--data-dir",
        metavar="DIR",
        envvar="KINGMAKER_DATA_DIR",
        help="Where spools, the snapshot and SQLite are.",
    ),
]
DatabaseUrl = Annotated[
    str | None,
    typer.Option(
        "--database-url",
        metavar="URL",
        envvar="KINGMAKER_DATABASE_URL",
        show_default="SQLite in the data folder",
        help="postgresql://… or sqlite:///….",
    ),
]
Workers = Annotated[
    int,
    typer.Option("--workers", metavar="N", envvar="KINGMAKER_WORKERS", help="How many gateway processes."),
]
