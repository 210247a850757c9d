"""Which snapshot does this worker route by? The newest on disk that is whole; otherwise the last that was.

On disk a snapshot lies in an envelope with its digest, so that half a file, or one with a flipped bit, is not
taken for one that somebody meant.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path

import msgspec

from app.gateway.targets import Target, target_of
from routing.claims import SigningKey
from routing.errors import BadSnapshot, RoutingError
from routing.snapshot import RouteTable, Snapshot

FILE_NAME = "snapshot.json"
KEPT_SUFFIX = ".kept.json"
_DIGEST_BYTES = 32

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Routing:
    """A snapshot, worked out for the request path. An exchange keeps the one it began with."""

    version: int
    table: RouteTable
    targets: Mapping[int, Target]
    key: SigningKey


def routing_of(snapshot: Snapshot, environment: Mapping[str, str]) -> Routing:
    """The snapshot, worked out; headers whose variable the environment lacks are left out, and logged.

    Raises:
        RoutingError: an arm cannot be called as it is described.
    """
    missing: list[str] = []
    targets = {
        arm.id: target_of(route, arm, environment, missing) for route in snapshot.routes for arm in route.arms
    }
    for name in missing:
        _log.warning("variable is not set, or no header's value", extra={"fields": {"variable": name}})
    return Routing(snapshot.version, RouteTable(snapshot), targets, snapshot.keys[0])


def write_snapshot(path: Path, snapshot: Snapshot) -> None:
    """Replace the snapshot on disk, whole or not at all.

    Raises:
        OSError: the file cannot be written; what was there is still there.
    """
    write_private(path, _envelope(msgspec.json.encode(snapshot)))


def read_snapshot(path: Path) -> Snapshot:
    """The snapshot in a file.

    Raises:
        BadSnapshot: it is not whole, or not one.
        OSError: the file cannot be read.
    """
    return _opened(path.read_bytes())


def write_private(path: Path, content: bytes) -> None:
    """Replace a file, whole or not at all; this user alone may read it, as it may hold signing keys.

    Raises:
        OSError: the file cannot be written; what was there is still there.
    """
    draft = path.with_suffix(f".{os.getpid()}.draft")
    try:
        with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        draft.replace(path)
    except BaseException:
        draft.unlink(missing_ok=True)
        raise


class SnapshotFile:
    """The snapshot on disk, as last seen, and the copy that is kept of the last one that was usable.

    Mutable state: `failures` counts contents that could not be used; `adopted_at` is the Unix time at which
    the one in use was taken; `is_kept` says that nothing has been taken since the last copy.
    """

    def __init__(self, path: Path, environment: Mapping[str, str]) -> None:
        self.failures = 0
        self.adopted_at: float | None = None
        self._path = path
        self._kept = path.with_suffix(KEPT_SUFFIX)
        self._environment = environment
        self._seen: tuple[int, int, int] | None = None
        self.is_kept = True
        self._content = b""

    def poll(self) -> Routing | None:
        """What to route by from now on; None when nothing has changed, or nothing usable is there.

        As long as there never was a usable file, the copy stands in for it.
        """
        routing = self._read(self._path)
        if routing is None and self.adopted_at is None:
            routing = self._read(self._kept)
            if routing is not None:
                _log.warning("the kept snapshot stands in", extra={"fields": {"version": routing.version}})
        if routing is not None:
            self.adopted_at = time.time()
        return routing

    def keep(self) -> None:
        """Keep a copy of what was adopted last, for a start over a damaged file. Waits for the disk."""
        content, self.is_kept = self._content, True
        try:
            if not self._kept.exists() or self._kept.read_bytes() != content:
                write_private(self._kept, content)
        except OSError as error:
            _log.warning("no copy of the snapshot was kept", extra={"fields": {"error": str(error)}})

    def _read(self, path: Path) -> Routing | None:
        try:
            status = path.stat()
            seen = (status.st_ino, status.st_mtime_ns, status.st_size)
            if seen == self._seen:
                return None
            content = path.read_bytes()
            self._seen = seen
            routing = routing_of(_opened(content), self._environment)
        except FileNotFoundError:
            return None
        except (OSError, RoutingError, UnicodeError) as error:
            self.failures += 1
            _log.error("snapshot is not usable", extra={"fields": {"file": path.name, "error": str(error)}})
            return None
        self._content, self.is_kept = content, False
        return routing


class _Envelope(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A snapshot and the digest of its bytes."""

    blake2b: str
    snapshot: msgspec.Raw


def _envelope(content: bytes) -> bytes:
    digest = blake2b(content, digest_size=_DIGEST_BYTES).hexdigest()
    return msgspec.json.encode(_Envelope(blake2b=digest, snapshot=msgspec.Raw(content)))


def _opened(content: bytes) -> Snapshot:
    try:
        envelope = msgspec.json.decode(content, type=_Envelope)
        digest = blake2b(envelope.snapshot, digest_size=_DIGEST_BYTES).hexdigest()
        if digest != envelope.blake2b:
            raise BadSnapshot(f"snapshot is damaged: its digest must be {envelope.blake2b}, got {digest}")
        return msgspec.json.decode(envelope.snapshot, type=Snapshot)
    except (msgspec.MsgspecError, RecursionError, UnicodeError) as error:
        raise BadSnapshot(f"snapshot cannot be read: {error}") from error
