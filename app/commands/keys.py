"""Who may call the control plane? Keys are made and deleted in the database itself, beside any server."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeVar

import typer
from rich.console import RenderableType

from app.commands.answers import show
from app.commands.options import DatabaseUrl, DataDir, Json, SettingsFile
from app.commands.serving import bring_up_to_date, settings_in_database
from app.settings import Settings
from app.tables import cell, moment, table

if TYPE_CHECKING:
    from app.db.keys import ApiKey
    from app.db.session import Connection

_Found = TypeVar("_Found")

Role = Annotated[
    Literal["viewer", "ingest", "operator", "admin"],
    typer.Option(help="What its holder may do.", show_default=False),
]


def create(
    role: Role,
    name: Annotated[
        str | None,
        typer.Option(
            "--name",
            metavar="NAME",
            show_default="the role",
            help="Whose it is: the actor that the timeline shows.",
        ),
    ] = None,
    config: SettingsFile = None,
    data_dir: DataDir = None,
    database_url: DatabaseUrl = None,
    as_json: Json = False,
) -> None:
    """Make a key. It is shown this once, and only its hash is stored."""
    from app.clock import now_ms  # noqa: PLC0415  # with SQLAlchemy, which is slow to load
    from app.db.keys import KeyRole, create_key  # noqa: PLC0415  # it loads SQLAlchemy
    from policies.spec import NAME  # noqa: PLC0415  # it is loaded with these

    actor = role if name is None else name
    if not NAME.fullmatch(actor):
        raise typer.BadParameter(f"must match {NAME.pattern}, got {actor!r}", param_hint="'--name'")
    made, secret = _in_database(
        settings_in_database(config, data_dir, database_url),
        lambda connection: create_key(connection, actor, KeyRole(role), now_ms()),
    )
    show(_shown(made) | {"key": secret}, as_json, _draw_created)


def list_keys(
    config: SettingsFile = None,
    data_dir: DataDir = None,
    database_url: DatabaseUrl = None,
    as_json: Json = False,
) -> None:
    """All keys, without their secrets."""
    from app.db.keys import list_keys as find  # noqa: PLC0415  # SQLAlchemy is slow to load

    found = _in_database(settings_in_database(config, data_dir, database_url), find)
    show({"keys": [_shown(key) for key in found]}, as_json, _draw_keys)


def delete(
    key_id: Annotated[
        int,
        typer.Argument(metavar="ID", show_default=False, help="Its id, as `kingmaker keys list` shows it."),
    ],
    config: SettingsFile = None,
    data_dir: DataDir = None,
    database_url: DatabaseUrl = None,
    as_json: Json = False,
) -> None:
    """Delete a key; it stops working at once."""
    from app.db.keys import delete_key  # noqa: PLC0415  # SQLAlchemy is slow to load

    settings = settings_in_database(config, data_dir, database_url)
    _in_database(settings, lambda connection: delete_key(connection, key_id))
    show({"deleted": key_id}, as_json, lambda answer: [f"key {answer['deleted']} is deleted"])


def _in_database(settings: Settings, work: Callable[[Connection], Awaitable[_Found]]) -> _Found:
    """Do it in one transaction, in a database of this version's tables."""
    from app.db.session import Database  # noqa: PLC0415  # SQLAlchemy is slow to load

    async def run() -> _Found:
        database = Database(settings.database)
        try:
            async with database.transaction() as connection:
                return await work(connection)
        finally:
            await database.close()

    bring_up_to_date(settings)
    return asyncio.run(run())


def _shown(key: ApiKey) -> dict[str, Any]:
    from app.control.presentation import key_view  # noqa: PLC0415  # pydantic is slow to load

    return key_view(key).model_dump(mode="json")


def _draw_created(key: dict[str, Any]) -> Iterator[RenderableType]:
    yield f"key {key['id']} for {cell(key['name'])} ({key['role']}), shown this once:"
    yield key["key"]


def _draw_keys(answer: dict[str, Any]) -> Iterator[RenderableType]:
    rows = [(str(key["id"]), key["name"], key["role"], moment(key["created_at"])) for key in answer["keys"]]
    yield table(["id", "name", "role", "made at"], rows) if rows else "no keys"
