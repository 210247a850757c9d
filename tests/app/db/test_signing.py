"""There is a key to sign decisions with from the first start on, and it does not change by itself."""

from __future__ import annotations

from sqlalchemy import insert

from app.db import signing, versions
from app.db.session import Database
from app.db.tables import signing_keys
from routing.claims import SigningKey
from tests.app.db.stage import START_MS


async def _ensure(database: Database) -> tuple[SigningKey, ...]:
    async with database.transaction() as connection:
        await signing.ensure_key(connection, START_MS)
    async with database.read() as connection:
        return await signing.load_keys(connection)


async def test_the_first_start_makes_a_key_and_later_ones_keep_it(database: Database) -> None:
    """Tokens of before a restart are still known after it."""
    (key,) = await _ensure(database)
    assert len(key.secret) == 32
    assert await _ensure(database) == (key,)


async def test_gateways_are_told_of_a_new_key_and_of_nothing_else(database: Database) -> None:
    """The snapshot's version rises with the key, once."""
    async with database.read() as connection:
        assert await versions.current(connection) == 0
    for _ in range(2):
        await _ensure(database)
        async with database.read() as connection:
            assert await versions.current(connection) == 1


async def test_the_newest_key_comes_first(database: Database) -> None:
    """It signs; the older ones are still there to verify with."""
    (first,) = await _ensure(database)
    async with database.transaction() as connection:
        await connection.execute(insert(signing_keys).values(secret=b"n" * 32, created_at_ms=START_MS + 1))
    newest, oldest = await _ensure(database)
    assert (newest.secret, oldest) == (b"n" * 32, first)
    assert newest.id > first.id


async def test_every_database_has_a_key_of_its_own(database: Database) -> None:
    """Secrets are drawn, not derived: a key that is made again is another."""
    (first,) = await _ensure(database)
    async with database.transaction() as connection:
        await connection.execute(signing_keys.delete())
    (second,) = await _ensure(database)
    assert second.secret != first.secret
