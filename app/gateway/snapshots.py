"""Which snapshot does this worker route by? The newest on disk that is whole; otherwise the one it has."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import msgspec

from app.gateway.targets import Target, target_of
from routing.errors import RoutingError
from routing.snapshot import RouteTable, Snapshot
from routing.tokens import SigningKey

FILE_NAME = "snapshot.json"

_log = logging.getLogger(__name__)
_decode = msgspec.json.Decoder(Snapshot).decode


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


class SnapshotFile:
    """The snapshot on disk, as last seen. `failures` counts contents that could not be used."""

    def __init__(self, path: Path, environment: Mapping[str, str]) -> None:
        self.failures = 0
        self._path = path
        self._environment = environment
        self._seen: tuple[int, int, int] | None = None

    def poll(self) -> Routing | None:
        """What to route by from now on; None when the file is as it was, missing, or not usable."""
        try:
            status = self._path.stat()
            seen = (status.st_ino, status.st_mtime_ns, status.st_size)
            if seen == self._seen:
                return None
            content = self._path.read_bytes()
            self._seen = seen
            return routing_of(_decode(content), self._environment)
        except FileNotFoundError:
            return None
        except (OSError, RecursionError, RoutingError, msgspec.MsgspecError, UnicodeError) as error:
            self.failures += 1
            _log.error("snapshot is not usable", extra={"fields": {"error": str(error)}})
            return None
