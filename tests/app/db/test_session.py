"""A transaction is kept whole or not at all, a read sees one state, and what goes wrong has our names."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from sqlalchemy import func, insert, select, text
from sqlalchemy.ext.asyncio import AsyncConnection, create_async_engine

from app.db.errors import BadDatabaseUrl, Conflict, DatabaseUnavailable
from app.db.session import Database, upsert
from app.db.tables import spool_marks
from tests.app.db.stage import driver_threads_gone, row_counts


async def put(connection: AsyncConnection, spool: str, seq: int = 0) -> None:
    """Write a row that nothing else depends on."""
    values = {"spool_id": spool, "seq": seq, "conflicts": 0, "unreadable": 0}
    await connection.execute(insert(spool_marks).values(**values))


async def write(database: Database, *spools: str, then: Exception | None = None) -> None:
    """Put rows in one transaction, which fails at its end where it is told to."""
    async with database.transaction() as connection:
        for spool in spools:
            await put(connection, spool)
        if then is not None:
            raise then


async def count(connection: AsyncConnection) -> int:
    """How many of those rows there are."""
    return int(await connection.scalar(select(func.count()).select_from(spool_marks)) or 0)


async def counted(database: Database) -> int:
    """The same, as anybody sees it."""
    async with database.read() as connection:
        return await count(connection)


async def test_a_transaction_keeps_all_its_writes(database: Database) -> None:
    """What was written in a transaction is there for everybody once it is over, and not before."""
    async with database.transaction() as connection:
        await put(connection, "a")
        await put(connection, "b")
        assert await counted(database) == 0
    assert await counted(database) == 2


async def test_a_failed_transaction_leaves_nothing(database: Database) -> None:
    """An exception of any kind undoes every write of its transaction, and passes on as it was."""
    for error in (ZeroDivisionError("math"), DatabaseUnavailable("far"), KeyError("key")):
        with pytest.raises(type(error)) as raised:
            await write(database, "a", "b", then=error)
        assert raised.value is error
    async with database.read() as connection:
        assert sum((await row_counts(connection)).values()) == 0


async def test_a_cancelled_transaction_leaves_nothing(database: Database) -> None:
    """A task that is cancelled in the middle of a transaction has written nothing, and holds no lock."""
    written = asyncio.Event()

    async def write_and_wait() -> None:
        async with database.transaction() as connection:
            await put(connection, "a")
            written.set()
            await asyncio.Event().wait()

    task = asyncio.create_task(write_and_wait())
    await written.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    async with database.transaction() as connection:
        await put(connection, "a")
    assert await counted(database) == 1


async def test_a_row_that_is_there_already_is_a_conflict(database: Database) -> None:
    """A broken constraint is told as Conflict, and its whole transaction is undone."""
    await write(database, "a")
    with pytest.raises(Conflict):
        await write(database, "b", "a")
    assert await counted(database) == 1


async def test_a_refused_statement_is_ours_to_name(database: Database) -> None:
    """What the database refuses is told as DatabaseUnavailable, and the connection can be used again."""
    with pytest.raises(DatabaseUnavailable, match="nowhere"):
        async with database.read() as connection:
            await connection.execute(text("SELECT 1 FROM nowhere"))
    assert await counted(database) == 0


async def test_a_read_sees_one_state(database: Database) -> None:
    """What others commit while a read goes on is not part of it, and is seen by the next."""
    async with database.read() as connection:
        assert await count(connection) == 0
        async with database.transaction() as other:
            await put(other, "a")
        assert await count(connection) == 0
    assert await counted(database) == 1


async def test_a_read_keeps_nothing(database: Database) -> None:
    """What is written through a reading connection is not there afterwards."""
    async with database.read() as connection:
        await put(connection, "a")
    assert await counted(database) == 0


async def test_writes_after_a_read_see_the_present(database: Database) -> None:
    """A pooled connection that has served a read sees, in a later transaction, what others commit."""
    async with database.read() as connection:
        await count(connection)
    async with database.transaction() as connection:
        assert await count(connection) == 0
        if connection.dialect.name == "postgresql":
            assert await connection.scalar(text("SHOW transaction_isolation")) == "read committed"


async def test_writers_take_turns(database: Database) -> None:
    """Twelve writers that read and write back a number at once lose no step: on SQLite one waits for another,
    on PostgreSQL they lock the row that they read."""
    async with database.transaction() as connection:
        await put(connection, "a")

    async def step() -> None:
        async with database.transaction() as connection:
            seq = await connection.scalar(select(spool_marks.c.seq).with_for_update())
            await asyncio.sleep(0)
            assert seq is not None
            await connection.execute(spool_marks.update().values(seq=seq + 1))

    await asyncio.gather(*(step() for _ in range(12)))
    async with database.read() as connection:
        assert await connection.scalar(select(spool_marks.c.seq)) == 12


async def test_an_upsert_is_of_the_connections_dialect(database: Database) -> None:
    """The same statement inserts a row that is new and does nothing to one that is there."""
    async with database.transaction() as connection:
        values = {"spool_id": "a", "seq": 1, "conflicts": 0, "unreadable": 0}
        for seq in (1, 2):
            statement = upsert(connection, spool_marks).values(**{**values, "seq": seq})
            await connection.execute(statement.on_conflict_do_nothing(index_elements=["spool_id"]))
        assert await connection.scalar(select(spool_marks.c.seq)) == 1


async def test_sqlite_is_durable_and_checks_references(sqlite_url: str) -> None:
    """Every SQLite connection has a write-ahead log, syncs each commit and checks foreign keys."""
    database = Database(sqlite_url)
    async with database.read() as connection:
        found = [
            await connection.scalar(text(f"PRAGMA {pragma}"))
            for pragma in ("journal_mode", "synchronous", "foreign_keys")
        ]
    await database.close()
    assert found == ["wal", 2, 1]


@pytest.mark.parametrize(
    ("url", "complaint"),
    [
        ("mysql://host/db", "must start with sqlite:// or postgresql://, got 'mysql'"),
        ("kingmaker.db", "must start with sqlite:// or postgresql://, got 'kingmaker.db'"),
        ("", "must start with sqlite:// or postgresql://, got ''"),
        ("postgresql://host:port/db", "is not a URL"),
        ("postgresql://:::/db", "is not a URL"),
    ],
)
def test_a_url_that_cannot_be_used_is_refused(url: str, complaint: str) -> None:
    """Another kind of database, or no URL, is refused with what was expected and what came."""
    with pytest.raises(BadDatabaseUrl, match=complaint):
        Database(url)


@pytest.mark.parametrize("scheme", ["postgres", "postgresql", "postgresql+psycopg2", "postgresql+asyncpg"])
async def test_every_spelling_of_postgres_gets_the_asynchronous_driver(scheme: str) -> None:
    """URLs made for other drivers serve as they are."""
    database = Database(f"{scheme}://ann@127.0.0.1:5432/kingmaker")
    assert database.engine.url.drivername == "postgresql+asyncpg"
    await database.close()


async def test_a_database_that_is_not_there_is_unavailable(postgres_url: str, tmp_path: Path) -> None:
    """A server that does not answer, a database it does not have and a folder that is missing are all told as
    DatabaseUnavailable, by reads and by transactions."""
    nowhere = [
        "postgresql://ann@127.0.0.1:1/kingmaker",
        postgres_url.replace("/t", "/no_t", 1),
        f"sqlite:///{tmp_path / 'missing' / 'kingmaker.db'}",
    ]
    for url in nowhere:
        database = Database(url)
        for way in (database.read, database.transaction):
            with pytest.raises(DatabaseUnavailable):
                async with way():
                    pass
        await database.close()
    await driver_threads_gone()


async def test_a_lost_connection_is_replaced(postgres_url: str) -> None:
    """A connection that the server has ended fails as DatabaseUnavailable; the next use gets a live one."""
    database = Database(postgres_url)
    with pytest.raises(DatabaseUnavailable):
        async with database.read() as connection:
            await connection.execute(text("SELECT pg_terminate_backend(pg_backend_pid())"))
    async with database.read() as connection:
        assert await connection.scalar(text("SELECT 1")) == 1
    await database.close()


async def test_waiting_in_vain_for_a_connection_is_unavailable(database: Database) -> None:
    """When all connections are in use for too long, whoever waits for one is told DatabaseUnavailable."""
    await database.close()
    database.engine = create_async_engine(database.engine.url, pool_size=1, max_overflow=0, pool_timeout=0.05)
    async with database.read():
        with pytest.raises(DatabaseUnavailable):
            async with database.read():
                pass
