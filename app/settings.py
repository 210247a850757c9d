"""What a server process is told at its start: by flags, else by KINGMAKER_* variables, else by a file."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from app.gateway.settings import GatewaySettings

DEFAULT_DATA_DIR = Path("kingmaker-data")
REDIS_SCHEMES = ("redis", "rediss", "unix")
_REDIS_FORM = (
    "must be as redis://USER:PASSWORD@HOST:PORT/DATABASE or unix:///PATH, without a query, and with # in a "
    "password as %23"
)
_MAX_WORKERS = 256


class BadSettings(ValueError):
    """A setting that cannot be; the message names it, its bound and the value."""


@dataclass(frozen=True, slots=True)
class Settings:
    """How this process serves. Without `database_url` and `redis_url` all is in SQLite files of `data_dir`.

    `routes` are those that the file `config` declares, not checked yet. `gateway` is for the gateway's
    workers; the control plane heeds what it says of networks.

    Raises:
        BadSettings: a value is out of its bounds.
    """

    config: Path | None = None
    host: str = "127.0.0.1"
    gateway_port: int = 8080
    control_port: int = 8081
    data_dir: Path = DEFAULT_DATA_DIR
    database_url: str | None = None
    redis_url: str | None = None
    workers: int = 1
    routes: tuple[dict[str, Any], ...] = ()
    gateway: GatewaySettings = field(default_factory=GatewaySettings)

    def __post_init__(self) -> None:
        for name in ("gateway_port", "control_port"):
            if not 0 <= getattr(self, name) <= 65_535:
                raise BadSettings(f"{name} must be in [0, 65535], got {getattr(self, name)}")
        if not 1 <= self.workers <= _MAX_WORKERS:
            raise BadSettings(f"workers must be in [1, {_MAX_WORKERS}], got {self.workers}")
        if self.redis_url is not None and (problem := _redis_problem(self.redis_url)) is not None:
            raise BadSettings(f"redis_url {problem}")
        if "?" in str(self.data_dir):
            raise BadSettings(f"data_dir must not hold a question mark, got {str(self.data_dir)!r}")
        if self.gateway_port == self.control_port != 0:
            raise BadSettings(f"gateway_port and control_port must differ, got {self.control_port} twice")

    @property
    def database(self) -> str:
        """The URL of the database."""
        return self.database_url or f"sqlite:///{self.data_dir.absolute() / 'kingmaker.db'}"


def _redis_problem(url: str) -> str | None:
    """Why this is no place of Redis. What it holds may be secret, so no more than its beginning is told."""
    scheme, separator, _ = url.partition("://")
    if not separator or scheme not in REDIS_SCHEMES:
        bound = "must begin with one of " + ", ".join(f"{known}://" for known in REDIS_SCHEMES)
        return f"{bound}, got {scheme if separator else 'none'}"
    try:
        parts = urlsplit(url)
        sound = parts.port != 0 and not (parts.query or parts.fragment)
    except ValueError:
        return _REDIS_FORM
    if scheme == "unix":
        return None if sound and parts.path else _REDIS_FORM
    database = parts.path.removeprefix("/")
    return None if sound and parts.hostname and (not database or database.isdigit()) else _REDIS_FORM


def prepare_data_dir(data_dir: Path) -> None:
    """Make the data folder, for this user alone.

    One that is there already keeps its mode: it may be a volume that somebody else looks after.

    Raises:
        BadSettings: it cannot be made or written to.
    """
    try:
        data_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
        (data_dir / "spools").mkdir(exist_ok=True, mode=0o700)
    except OSError as error:
        raise BadSettings(
            f"data_dir must be a folder that can be written, got {data_dir}: {error}"
        ) from error
    if not os.access(data_dir, os.W_OK | os.X_OK):
        raise BadSettings(f"data_dir must be a folder that can be written, got {data_dir}")
