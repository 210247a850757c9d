"""Which settings does each kind of server process read, and where does it start?"""

from __future__ import annotations

import json
from typing import Any

import typer

from app.commands.options import (
    DATA_DIR,
    Config,
    ControlPort,
    DatabaseUrl,
    DataDir,
    GatewayPort,
    Host,
    Json,
    Workers,
)
from app.db.errors import DatabaseUnavailable
from app.settings import BadSettings, Settings, prepare_data_dir

_ANY_PORT = 0
"""For a listener that the process does not have: it collides with no other."""


def serve(
    config: Config = None,
    host: Host = "127.0.0.1",
    gateway_port: GatewayPort = 8080,
    control_port: ControlPort = 8081,
    data_dir: DataDir = DATA_DIR,
    database_url: DatabaseUrl = None,
    workers: Workers = 1,
) -> None:
    """Run everything: gateway, control plane, recorder, evaluator."""
    settings = _settings(
        config=config,
        host=host,
        gateway_port=gateway_port,
        control_port=control_port,
        data_dir=data_dir,
        database_url=database_url,
        workers=workers,
    )
    from app.serve import serve as run  # noqa: PLC0415  # only a server needs all of its parts

    raise typer.Exit(run(settings))


def gateway(
    host: Host = "127.0.0.1",
    gateway_port: GatewayPort = 8080,
    data_dir: DataDir = DATA_DIR,
    workers: Workers = 1,
) -> None:
    """Run the gateway alone, from the snapshot in the data folder."""
    settings = _settings(
        host=host, gateway_port=gateway_port, control_port=_ANY_PORT, data_dir=data_dir, workers=workers
    )
    from app.serve import run_gateway  # noqa: PLC0415  # only a server needs all of its parts

    raise typer.Exit(run_gateway(settings))


def control(
    config: Config = None,
    host: Host = "127.0.0.1",
    control_port: ControlPort = 8081,
    data_dir: DataDir = DATA_DIR,
    database_url: DatabaseUrl = None,
) -> None:
    """Run the control plane alone."""
    settings = _settings(
        config=config,
        host=host,
        gateway_port=_ANY_PORT,
        control_port=control_port,
        data_dir=data_dir,
        database_url=database_url,
    )
    from app.serve import run_control  # noqa: PLC0415  # only a server needs all of its parts

    raise typer.Exit(run_control(settings))


def worker(data_dir: DataDir = DATA_DIR, database_url: DatabaseUrl = None) -> None:
    """Run the recorder and the evaluator alone."""
    settings = _settings(data_dir=data_dir, database_url=database_url)
    from app.serve import run_worker  # noqa: PLC0415  # only a server needs all of its parts

    raise typer.Exit(run_worker(settings))


def migrate(data_dir: DataDir = DATA_DIR, database_url: DatabaseUrl = None, as_json: Json = False) -> None:
    """Bring the database to the tables of this version."""
    settings = _settings(data_dir=data_dir, database_url=database_url)
    before, after = bring_up_to_date(settings)
    if as_json:
        typer.echo(json.dumps({"before": before, "after": after}))
    elif before == after:
        typer.echo(f"revision {after}: up to date")
    else:
        typer.echo(f"revision {before or 'none'} -> {after}")


def bring_up_to_date(settings: Settings) -> tuple[str | None, str]:
    """Migrate the database of these settings; gives the revision before (None: empty) and after.

    Raises:
        BadSettings, DatabaseError: there is no database to migrate.
    """
    from app.db.migrate import migrate as run  # noqa: PLC0415  # SQLAlchemy is slow to load

    if settings.database_url is None:
        prepare_data_dir(settings.data_dir)
    try:
        return run(settings.database)
    except DatabaseUnavailable as error:
        reason = str(error).partition("\n")[0]
        raise DatabaseUnavailable(f"cannot use the database ({reason}): is --database-url right?") from error


def _settings(**given: Any) -> Settings:
    try:
        return Settings(**given)
    except BadSettings as error:
        raise typer.BadParameter(str(error)) from error
