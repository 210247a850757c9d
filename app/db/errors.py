"""What can go wrong with the database, in our words."""

from __future__ import annotations


class DatabaseError(Exception):
    """Base of everything that the database raises here."""


class BadDatabaseUrl(DatabaseError, ValueError):
    """A database URL that cannot be used."""


class DatabaseUnavailable(DatabaseError):
    """The database cannot be reached, or refused a statement."""


class Conflict(DatabaseError):
    """Someone else was there first: a name that is taken, or a version that has moved on."""


class NotFound(DatabaseError):
    """There is no such thing."""


class UnknownRevision(DatabaseError):
    """The database has tables of another version, which this one does not know."""


class Unreadable(DatabaseError):
    """A row that this version cannot read: another version, or another program, wrote it."""
