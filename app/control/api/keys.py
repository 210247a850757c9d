"""API keys: made, listed, deleted. A key's secret is shown once, when it is made."""

from __future__ import annotations

from fastapi import APIRouter

from app.clock import now_ms
from app.control.api.parameters import Scope
from app.control.auth import LOCAL, Admin
from app.control.presentation import key_view
from app.control.schemas import NewKey
from app.control.views import CreatedKey, Keys
from app.db.keys import KeyRole, create_key, delete_key, list_keys
from policies.errors import BadSpec
from policies.spec import NAME

router = APIRouter(tags=["keys"])


@router.post("/keys", status_code=201)
async def make_key(wanted: NewKey, context: Scope, caller: Admin) -> CreatedKey:
    """Make a key. Keep what `key` says: it is stored as a hash, and shown this once."""
    if not NAME.fullmatch(wanted.name):
        raise BadSpec("name", f"must match {NAME.pattern}, got {wanted.name!r}")
    if caller is LOCAL and KeyRole(wanted.role) is not KeyRole.ADMIN:
        raise BadSpec(
            "role", f"must be admin for the first key, or nobody could make another, got {wanted.role!r}"
        )
    async with context.database.transaction() as connection:
        key, secret = await create_key(connection, wanted.name, KeyRole(wanted.role), now_ms())
    return CreatedKey(**key_view(key).model_dump(), key=secret)


@router.get("/keys")
async def read_keys(context: Scope, _: Admin) -> Keys:
    """All keys, without their secrets."""
    async with context.database.read() as connection:
        return Keys(keys=[key_view(key) for key in await list_keys(connection)])


@router.delete("/keys/{id}", status_code=204)
async def remove_key(id: int, context: Scope, _: Admin) -> None:  # noqa: A002 - the name in the path
    """Delete a key; who holds it is let in no more."""
    async with context.database.transaction() as connection:
        await delete_key(connection, id)
