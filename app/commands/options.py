"""Which options do commands share? Each is a flag, else a KINGMAKER_* variable, else a line of the file."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

DEFAULT_SERVER = "http://127.0.0.1:8081"

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
        help="A file of settings, and of routes to apply first.",
    ),
]
SettingsFile = Annotated[
    Path | None,
    typer.Option(
        "--config",
        metavar="FILE",
        envvar="KINGMAKER_CONFIG",
        show_default=False,
        help="A file of settings; its routes are left alone.",
    ),
]
Limit = Annotated[
    list[str] | None,
    typer.Option(
        "--limit",
        metavar="NAME=VALUE",
        show_default=False,
        help="A limit of the gateway, such as body_bytes=1MiB (or KINGMAKER_GATEWAY_BODY_BYTES); repeatable.",
    ),
]
Host = Annotated[
    str | None,
    typer.Option(
        "--host",
        metavar="ADDRESS",
        envvar="KINGMAKER_HOST",
        show_default="127.0.0.1",
        help="Which address to listen on.",
    ),
]
GatewayPort = Annotated[
    int | None,
    typer.Option(
        "--gateway-port",
        metavar="PORT",
        envvar="KINGMAKER_GATEWAY_PORT",
        show_default="8080",
        help="The gateway's port; 0 takes any.",
    ),
]
ControlPort = Annotated[
    int | None,
    typer.Option(
        "--control-port",
        metavar="PORT",
        envvar="KINGMAKER_CONTROL_PORT",
        show_default="8081",
        help="The control plane's port; 0 takes any.",
    ),
]
DataDir = Annotated[
    Path | None,
    typer.Option(
        "--data-dir",
        metavar="DIR",
        envvar="KINGMAKER_DATA_DIR",
        show_default="kingmaker-data",
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
RedisUrl = Annotated[
    str | None,
    typer.Option(
        "--redis-url",
        metavar="URL",
        envvar="KINGMAKER_REDIS_URL",
        show_default="a file in the data folder",
        help="redis://…, rediss://… or unix://…: keeps units' first arms for the gateways of many machines.",
    ),
]
Workers = Annotated[
    int | None,
    typer.Option(
        "--workers",
        metavar="N",
        envvar="KINGMAKER_WORKERS",
        show_default="1",
        help="How many gateway processes.",
    ),
]
