"""Which routes has somebody on this machine sent to their champions, without asking any store?

A command lies beside the snapshot in the data folder, signed with a key of the snapshot: whoever wrote it
could read this installation's secrets. A file from elsewhere, an edited or a damaged one has no effect.
"""

from __future__ import annotations

import fcntl
import hmac
import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from hashlib import blake2b
from pathlib import Path

import msgspec

from app.gateway.snapshots import write_private
from routing.claims import SigningKey
from routing.snapshot import Snapshot

FILE_NAME = "kills.json"
_LOCK_NAME = "kills.lock"
_MAC_BYTES = 32
_PURPOSE = b"kingmaker.kills"

_log = logging.getLogger(__name__)


class BadKills(Exception):
    """A file of kill switches that is damaged, or that no key of the snapshot has signed."""


class Kill(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One route whose kill switch is on, until a time or until it is turned off. Times are Unix ms."""

    route: str
    reason: str
    since_ms: int
    until_ms: int | None = None

    def is_on(self, now_ms: int) -> bool:
        """Whether it has not expired."""
        return self.until_ms is None or now_ms < self.until_ms


class KillFile:
    """The kill switches of a data folder, as a worker sees them.

    A file that vanishes or cannot be verified changes nothing: turning a switch off is a signed command too.

    Mutable state: the switches last read, and `refusals`, which counts contents that could not be verified
    and switches of routes that do not exist.
    """

    def __init__(self, path: Path) -> None:
        self.refusals = 0
        self._path = path
        self._seen: tuple[object, ...] | None = None
        self._kills: tuple[Kill, ...] = ()
        self._unknown: frozenset[str] = frozenset()

    def in_force(self, snapshot: Snapshot, now_ms: int) -> frozenset[str]:
        """The snapshot's routes whose switch is on now; the file is read when it or the keys have changed."""
        self._read(snapshot.keys)
        named = frozenset(kill.route for kill in self._kills if kill.is_on(now_ms))
        known = named & {route.name for route in snapshot.routes} if named else named
        self._tell_unknown(named - known)
        return known

    def _read(self, keys: Sequence[SigningKey]) -> None:
        try:
            status = self._path.stat()
            seen = (status.st_ino, status.st_mtime_ns, status.st_size, tuple(keys))
            if seen == self._seen:
                return
            self._seen = seen
            self._kills = _opened(self._path.read_bytes(), keys)
        except FileNotFoundError:
            return
        except (OSError, BadKills) as error:
            self.refusals += 1
            _log.error("kill switches are ignored", extra={"fields": {"error": str(error)}})

    def _tell_unknown(self, unknown: frozenset[str]) -> None:
        for route in sorted(unknown - self._unknown):
            self.refusals += 1
            _log.error("kill switch of an unknown route is ignored", extra={"fields": {"route": route}})
        self._unknown = unknown


def with_kill_switches(snapshot: Snapshot, routes: frozenset[str]) -> Snapshot:
    """The snapshot with the kill switch of these routes on."""
    killed = tuple(
        msgspec.structs.replace(route, kill_switch=True) if route.name in routes else route
        for route in snapshot.routes
    )
    return msgspec.structs.replace(snapshot, routes=killed)


def read_kills(path: Path, keys: Sequence[SigningKey]) -> tuple[Kill, ...]:
    """The switches in a file, expired ones too; none when there is no file.

    Raises:
        BadKills: it is damaged, or no key of these has signed it.
        OSError: it cannot be read.
    """
    try:
        return _opened(path.read_bytes(), keys)
    except FileNotFoundError:
        return ()


def write_kills(path: Path, kills: Sequence[Kill], key: SigningKey) -> None:
    """Replace the file of switches, whole or not at all; workers see it within a tenth of a second.

    Raises:
        OSError: it cannot be written; what was in force still is.
    """
    commands = msgspec.json.encode(tuple(kills))
    signed = _Signed(key=key.id, mac=_mac(commands, key), kills=msgspec.Raw(commands))
    write_private(path, msgspec.json.encode(signed))


@contextmanager
def one_writer(data_dir: Path) -> Iterator[None]:
    """One change of the switches of a data folder at a time, so that none undoes another.

    Raises:
        OSError: the lock file cannot be written.
    """
    with (data_dir / _LOCK_NAME).open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


class _Signed(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The switches, and a keyed BLAKE2b over their bytes; `key` is the id of the snapshot's key."""

    key: int
    mac: str
    kills: msgspec.Raw


def _opened(content: bytes, keys: Sequence[SigningKey]) -> tuple[Kill, ...]:
    try:
        signed = msgspec.json.decode(content, type=_Signed)
        key = next((key for key in keys if key.id == signed.key), None)
        if key is None or not hmac.compare_digest(signed.mac.encode(), _mac(signed.kills, key).encode()):
            raise BadKills(f"{FILE_NAME} must be signed with a key of the snapshot")
        return msgspec.json.decode(signed.kills, type=tuple[Kill, ...])
    except (msgspec.MsgspecError, UnicodeError, RecursionError) as error:
        raise BadKills(f"{FILE_NAME} cannot be read: {error}") from error


def _mac(commands: bytes | msgspec.Raw, key: SigningKey) -> str:
    return blake2b(commands, digest_size=_MAC_BYTES, key=key.secret, person=_PURPOSE).hexdigest()
