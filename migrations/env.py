"""Runs the migrations on the connection that `app.db.migrate` hands over."""

from __future__ import annotations

from alembic import context
from sqlalchemy import text

from app.db.tables import metadata

LOCK_TIMEOUT = "5s"


def run() -> None:
    """Migrate within the caller's transaction; on PostgreSQL nobody waits long for a lock."""
    connection = context.config.attributes["connection"]
    if connection.dialect.name == "postgresql":
        connection.execute(text(f"SET LOCAL lock_timeout = '{LOCK_TIMEOUT}'"))
    context.configure(
        connection=connection,
        target_metadata=metadata,
        render_as_batch=True,
        transactional_ddl=False,
    )
    context.run_migrations()


run()
