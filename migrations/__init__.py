"""The steps of the database schema, oldest first, run by Alembic on SQLite and Postgres."""
