"""From nothing to the tables of this version, on SQLite and PostgreSQL, as often as one likes."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from typing import Any

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, inspect, select, text

import migrations
from app.db.errors import BadDatabaseUrl, DatabaseError, DatabaseUnavailable, UnknownRevision
from app.db.migrate import migrate, migrate_database
from app.db.session import Database
from app.db.tables import metadata
from tests.app.db.stage import driver_threads_gone, get_route, put_route, row_counts

ROOT = Path(__file__).parents[2]
SCRIPTS = ScriptDirectory(str(Path(migrations.__path__[0])))
HEAD = SCRIPTS.get_current_head()

LOG_DDL = (
    "CREATE TABLE ddl_log (tag TEXT NOT NULL, lock_timeout TEXT NOT NULL)",
    """CREATE FUNCTION log_ddl() RETURNS event_trigger LANGUAGE plpgsql AS
    $$ BEGIN INSERT INTO ddl_log VALUES (tg_tag, current_setting('lock_timeout')); END $$""",
    "CREATE EVENT TRIGGER log_ddl ON ddl_command_start EXECUTE FUNCTION log_ddl()",
)


def tables_of(connection: Connection) -> set[str]:
    """The names of the tables that are there."""
    return set(inspect(connection).get_table_names())


def differences(connection: Connection) -> list[Any]:
    """What separates a database from the tables of `app.db.tables`."""
    context = MigrationContext.configure(
        connection, opts={"compare_type": True, "compare_server_default": True, "render_as_batch": True}
    )
    return list(compare_metadata(context, metadata))


def undo(connection: Connection, revision: str) -> None:
    """Undoes the newest step, which must be this one."""
    config = Config()
    config.set_main_option("script_location", str(Path(migrations.__path__[0])))
    config.attributes["connection"] = connection
    assert MigrationContext.configure(connection).get_current_revision() == revision
    command.downgrade(config, "-1")


async def seen(url: str, look: Any) -> Any:
    """What a function sees through a connection of its own."""
    database = Database(url)
    try:
        async with database.read() as connection:
            return await connection.run_sync(look)
    finally:
        await database.close()


async def test_an_empty_database_gets_exactly_the_tables_of_this_version(empty_url: str) -> None:
    """After the migrations there is no table, column, type, default, index or constraint too many or few."""
    assert await migrate_database(empty_url) == (None, HEAD)
    assert await seen(empty_url, differences) == []
    assert await seen(empty_url, tables_of) == {*metadata.tables, "alembic_version"}


async def test_the_comparison_would_notice(empty_url: str) -> None:
    """Were a column, a table or an index missing, the test above would say so."""
    await migrate_database(empty_url)
    database = Database(empty_url)
    async with database.transaction() as connection:
        for statement in (
            "DROP TABLE spool_marks",
            "ALTER TABLE rollups DROP COLUMN sum_squares",
            "DROP INDEX ix_timeline_route_id_at_ms",
        ):
            await connection.execute(text(statement))
    await database.close()
    found = await seen(empty_url, differences)
    assert {difference[0] for difference in found} == {"add_table", "add_column", "add_index"}


async def test_migrating_again_changes_nothing(empty_url: str) -> None:
    """A second run reports the same revision before and after, and leaves every row."""
    await migrate_database(empty_url)
    database = Database(empty_url)
    route = await put_route(database)
    async with database.read() as connection:
        before = await row_counts(connection)
    assert await migrate_database(empty_url) == (HEAD, HEAD)
    async with database.read() as connection:
        assert await row_counts(connection) == before
    assert await get_route(database) == route
    await database.close()


async def test_every_step_can_be_undone_and_done_again(empty_url: str) -> None:
    """Down to nothing, one step after the other, and up again: the same tables as at first."""
    await migrate_database(empty_url)
    revisions = [step.revision for step in SCRIPTS.walk_revisions()]
    database = Database(empty_url)
    for revision in revisions:
        async with database.transaction() as connection:
            await connection.run_sync(undo, revision)
    async with database.read() as connection:
        assert await connection.run_sync(tables_of) == {"alembic_version"}
    assert await migrate_database(empty_url) == (None, HEAD)
    async with database.read() as connection:
        assert await connection.run_sync(differences) == []
    await database.close()


async def test_a_database_of_a_later_version_is_left_alone(empty_url: str) -> None:
    """After a deployment was rolled back, the older version says in a line why it does not start."""
    await migrate_database(empty_url)
    database = Database(empty_url)
    async with database.transaction() as connection:
        await connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    await database.close()
    with pytest.raises(UnknownRevision, match="revision '9999', which this version does not know"):
        await migrate_database(empty_url)


async def test_a_failed_migration_leaves_nothing(empty_url: str) -> None:
    """When a step fails, the tables that were made before it are gone again, and the next run can succeed."""
    last = "shadow_answers"
    database = Database(empty_url)
    async with database.transaction() as connection:
        await connection.execute(text(f"CREATE TABLE {last} (id INTEGER)"))
    with pytest.raises(DatabaseError, match=last):
        await migrate_database(empty_url)
    async with database.read() as connection:
        assert await connection.run_sync(tables_of) == {last}
    async with database.transaction() as connection:
        await connection.execute(text(f"DROP TABLE {last}"))
    assert await migrate_database(empty_url) == (None, HEAD)
    await database.close()


async def test_every_migration_waits_for_locks_a_short_time_only(postgres_url: str) -> None:
    """On PostgreSQL, whatever a migration makes or changes, it does under a lock timeout of five seconds; and
    the timeout ends with the migration."""
    database = Database(postgres_url)
    async with database.transaction() as connection:
        for statement in LOG_DDL:
            await connection.execute(text(statement))
    await migrate_database(postgres_url)
    async with database.read() as connection:
        rows = (await connection.execute(text("SELECT tag, lock_timeout FROM ddl_log"))).all()
        assert await connection.scalar(text("SHOW lock_timeout")) == "0"
    await database.close()
    assert {row.tag for row in rows} >= {"CREATE TABLE", "CREATE INDEX"}
    assert {row.lock_timeout for row in rows} == {"5s"}


async def test_processes_that_start_at_once_migrate_in_turn(empty_url: str) -> None:
    """Two processes migrate one empty database at the same time: one finds it empty, both succeed."""
    command = (
        sys.executable,
        "-c",
        "import sys; from app.db.migrate import migrate; print(migrate(sys.argv[1]))",
    )
    pipe = asyncio.subprocess.PIPE
    processes = [
        await asyncio.create_subprocess_exec(*command, empty_url, cwd=ROOT, stdout=pipe, stderr=pipe)
        for _ in range(2)
    ]
    said = [await process.communicate() for process in processes]
    assert [process.returncode for process in processes] == [0, 0], said
    reports = sorted(out.decode().strip() for out, _ in said)
    assert reports == sorted([f"(None, {HEAD!r})", f"({HEAD!r}, {HEAD!r})"])
    assert await seen(empty_url, differences) == []


async def test_a_program_without_a_loop_migrates_too(empty_url: str) -> None:
    """`migrate` does from plain code what `migrate_database` does from within an event loop."""
    assert await asyncio.to_thread(migrate, empty_url) == (None, HEAD)
    assert await asyncio.to_thread(migrate, empty_url) == (HEAD, HEAD)


async def test_without_a_database_there_is_nothing_to_migrate(tmp_path: Path) -> None:
    """A URL of another kind and a place that cannot be reached are told as what they are."""
    with pytest.raises(BadDatabaseUrl):
        await migrate_database("mysql://127.0.0.1/kingmaker")
    with pytest.raises(DatabaseUnavailable):
        await migrate_database(f"sqlite:///{tmp_path / 'missing' / 'kingmaker.db'}")
    await driver_threads_gone()


async def test_ids_that_tokens_carry_count_up_on_both(empty_url: str) -> None:
    """Routes and arms take their ids from a sequence that never goes back, even when the newest row is
    removed by hand."""
    await migrate_database(empty_url)
    database = Database(empty_url)
    first = await put_route(database)
    removed = [table for table in reversed(metadata.sorted_tables) if table.name != "snapshot_versions"]
    async with database.transaction() as connection:
        for table in removed:
            await connection.execute(table.delete())
        assert (await connection.execute(select(metadata.tables["routes"]))).all() == []
    second = await put_route(database)
    assert second.id > first.id
    assert min(second.arm_ids.values()) > max(first.arm_ids.values())
    await database.close()


def test_migrations_form_one_line() -> None:
    """Each step follows another, from the first to one head, and can be undone."""
    config = Config()
    config.set_main_option("script_location", str(Path(migrations.__path__[0])))
    steps = list(ScriptDirectory.from_config(config).walk_revisions())
    assert [step.down_revision for step in steps] == [*(step.revision for step in steps[1:]), None]
    assert all(callable(getattr(step.module, "downgrade", None)) for step in steps)
