"""Which settings does each kind of server process read, and where does it start?"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import typer

from app.commands.options import (
    Config,
    ControlPort,
    DatabaseUrl,
    DataDir,
    GatewayPort,
    Host,
    Json,
    Limit,
    RedisUrl,
    SettingsFile,
    Workers,
)
from app.db.errors import DatabaseUnavailable
from app.settings import BadSettings, Settings, prepare_data_dir
from app.sources import settings_from

_ANY_PORT = 0
"""For a listener that the process does not have: it collides with no other."""


def serve(
    config: Config = None,
    host: Host = None,
    gateway_port: GatewayPort = None,
    control_port: ControlPort = None,
    data_dir: DataDir = None,
    database_url: DatabaseUrl = None,
    redis_url: RedisUrl = None,
    workers: Workers = None,
    limit: Limit = None,
) -> None:
    """Run everything: gateway, control plane and worker."""
    settings = settings_of(
        config,
        limit,
        host=host,
        gateway_port=gateway_port,
        control_port=control_port,
        data_dir=data_dir,
        database_url=database_url,
        redis_url=redis_url,
        workers=workers,
    )
    from app.serve import serve as run  # noqa: PLC0415  # only a server needs all of its parts

    raise typer.Exit(run(settings))


def gateway(
    config: SettingsFile = None,
    host: Host = None,
    gateway_port: GatewayPort = None,
    data_dir: DataDir = None,
    redis_url: RedisUrl = None,
    workers: Workers = None,
    limit: Limit = None,
) -> None:
    """Run the gateway alone, from the data folder's snapshot."""
    settings = settings_of(
        config,
        limit,
        host=host,
        gateway_port=gateway_port,
        control_port=_ANY_PORT,
        data_dir=data_dir,
        redis_url=redis_url,
        workers=workers,
    )
    from app.serve import run_gateway  # noqa: PLC0415  # only a server needs all of its parts

    raise typer.Exit(run_gateway(settings))


def control(
    config: Config = None,
    host: Host = None,
    control_port: ControlPort = None,
    data_dir: DataDir = None,
    database_url: DatabaseUrl = None,
    redis_url: RedisUrl = None,
    limit: Limit = None,
) -> None:
    """Run the control plane alone. Of the gateway's limits it heeds those on where arms may be."""
    settings = settings_of(
        config,
        limit,
        host=host,
        gateway_port=_ANY_PORT,
        control_port=control_port,
        data_dir=data_dir,
        database_url=database_url,
        redis_url=redis_url,
    )
    from app.serve import run_control  # noqa: PLC0415  # only a server needs all of its parts

    raise typer.Exit(run_control(settings))


def worker(config: SettingsFile = None, data_dir: DataDir = None, database_url: DatabaseUrl = None) -> None:
    """Run the recorder, the learner and the evaluator alone."""
    settings = settings_in_database(config, data_dir, database_url)
    from app.serve import run_worker  # noqa: PLC0415  # only a server needs all of its parts

    raise typer.Exit(run_worker(settings))


def migrate(
    config: SettingsFile = None,
    data_dir: DataDir = None,
    database_url: DatabaseUrl = None,
    as_json: Json = False,
) -> None:
    """Bring the database to the tables of this version."""
    settings = settings_in_database(config, data_dir, database_url)
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


def settings_in_database(config: Path | None, data_dir: Path | None, database_url: str | None) -> Settings:
    """The settings of a command that listens nowhere.

    Raises:
        BadSettings, ConfigError: as `settings_of`.
    """
    return settings_of(
        config,
        None,
        gateway_port=_ANY_PORT,
        control_port=_ANY_PORT,
        data_dir=data_dir,
        database_url=database_url,
    )


def settings_of(config: Path | None, limits: list[str] | None, **given: Any) -> Settings:
    """The settings of a command, of which those that are None come from the file or have their default.

    Raises:
        BadSettings, ConfigError: the file cannot be read, or says what cannot be.
    """
    try:
        return settings_from(given, config, limits or (), os.environ)
    except BadSettings as error:
        raise typer.BadParameter(str(error)) from error
