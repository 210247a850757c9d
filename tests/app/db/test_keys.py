"""A key is known by the hash of its secret, and at least one admin is left as long as anybody is."""

from __future__ import annotations

import asyncio

import pytest
from sqlalchemy import select

from app.db.errors import Conflict, NotFound
from app.db.keys import RESERVED_NAMES, ApiKey, KeyRole, any_keys, create_key, delete_key, find_key, list_keys
from app.db.session import Database
from app.db.tables import api_keys
from tests.app.db.stage import START_MS


async def _create(database: Database, name: str, role: KeyRole = KeyRole.ADMIN) -> tuple[ApiKey, str]:
    async with database.transaction() as connection:
        return await create_key(connection, name, role, START_MS)


async def _delete(database: Database, key: ApiKey) -> None:
    async with database.transaction() as connection:
        await delete_key(connection, key.id)


async def test_a_key_is_found_by_its_secret_and_by_nothing_else(database: Database) -> None:
    """Each role comes back; a near miss, the hash itself, and no text at all find nothing."""
    made = [await _create(database, role.value, role) for role in KeyRole]
    async with database.read() as connection:
        for key, secret in made:
            assert await find_key(connection, secret) == key
        hashes = (await connection.execute(select(api_keys.c.sha256))).scalars().all()
        for wrong in ("", made[0][1][:-1], made[0][1] + "=", made[0][1].upper(), hashes[0], "\udc80\x00é"):
            assert await find_key(connection, wrong) is None


async def test_no_column_holds_a_secret(database: Database) -> None:
    """Neither the whole nor a part of it; secrets are long, and no two are alike."""
    secrets = {(await _create(database, f"k{number}"))[1] for number in range(5)}
    assert len(secrets) == 5
    assert all(len(secret) == 46 and secret.startswith("km_") for secret in secrets)
    async with database.read() as connection:
        stored = repr((await connection.execute(select(api_keys))).all())
    assert not any(secret[3:19] in stored for secret in secrets)


async def test_keys_are_listed_oldest_first(database: Database) -> None:
    """And whether there is any is known."""
    async with database.read() as connection:
        assert (await list_keys(connection), await any_keys(connection)) == ([], False)
    made = [(await _create(database, name))[0] for name in ("b", "a")]
    async with database.read() as connection:
        assert (await list_keys(connection), await any_keys(connection)) == (made, True)


async def test_a_name_is_given_once(database: Database) -> None:
    """A second key of it is refused, of many at once all but one, and nothing of them is left."""
    await _create(database, "me")
    with pytest.raises(Conflict, match="got 'me'"):
        await _create(database, "me", KeyRole.VIEWER)
    results = await asyncio.gather(*(_create(database, "you") for _ in range(4)), return_exceptions=True)
    assert [type(result) for result in results if isinstance(result, BaseException)] == [Conflict] * 3
    async with database.read() as connection:
        assert [key.name for key in await list_keys(connection)] == ["me", "you"]


@pytest.mark.parametrize("name", RESERVED_NAMES)
async def test_no_key_is_named_like_another_actor(database: Database, name: str) -> None:
    """The timeline never says that the policy did what a person has done."""
    with pytest.raises(Conflict, match=name):
        await _create(database, name)


async def test_a_deleted_key_is_forgotten(database: Database) -> None:
    """Its secret finds nothing, its name is free, its id unknown."""
    await _create(database, "me")
    key, secret = await _create(database, "ci", KeyRole.OPERATOR)
    await _delete(database, key)
    async with database.read() as connection:
        assert await find_key(connection, secret) is None
    with pytest.raises(NotFound, match=f"id {key.id}"):
        await _delete(database, key)
    await _create(database, "ci", KeyRole.OPERATOR)


async def test_the_last_admin_goes_last(database: Database) -> None:
    """While keys of others are left it is refused; a second admin, or none but it, lets it go."""
    first, _ = await _create(database, "first")
    viewer, _ = await _create(database, "viewer", KeyRole.VIEWER)
    with pytest.raises(Conflict, match="'first' is the last admin's"):
        await _delete(database, first)
    second, _ = await _create(database, "second")
    await _delete(database, first)
    await _delete(database, viewer)
    await _delete(database, second)
    async with database.read() as connection:
        assert not await any_keys(connection)
