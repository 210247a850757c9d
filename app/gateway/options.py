"""What a worker process is started with, as its parent says it and as it reads it."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec

from app.gateway.own import NOWHERE, Listeners, listener_text, read_listener
from app.gateway.settings import GatewaySettings

SETTINGS_VARIABLE = "KINGMAKER_WORKER_SETTINGS"
"""Settings as JSON. Not an argument: `ps` shows those to everybody, and an address may hold a secret."""

REDIS_VARIABLE = "KINGMAKER_WORKER_REDIS_URL"
"""The URL of Redis, or nothing; it often holds a password."""

DEFAULTS = GatewaySettings()


class BadOptions(ValueError):
    """What the parent says cannot be; the message names it."""


@dataclass(frozen=True, slots=True)
class Options:
    """One worker: data folder, name (also of its spool), inherited listening TCP socket, limits, Redis.

    `stdout_fd` is where an access log for standard output goes. `own` are the other listeners of this
    installation, which no arm may be either.
    """

    data_dir: Path
    worker: str
    listener_fd: int
    settings: GatewaySettings = DEFAULTS
    stdout_fd: int = 1
    own: Listeners = NOWHERE
    redis_url: str | None = None

    def arguments(self) -> list[str]:
        """The command line, without settings."""
        return [
            *("--data-dir", str(self.data_dir)),
            *("--worker", self.worker),
            *("--fd", str(self.listener_fd)),
            *("--stdout-fd", str(self.stdout_fd)),
            *(word for listener in sorted(self.own) for word in ("--own", listener_text(*listener))),
        ]

    def variables(self) -> dict[str, str]:
        """What is added to the environment: the settings, and where Redis is."""
        settings = msgspec.json.encode(self.settings).decode()
        return {SETTINGS_VARIABLE: settings, REDIS_VARIABLE: self.redis_url or ""}


def read_options(arguments: Sequence[str], environment: Mapping[str, str]) -> Options:
    """The options that `arguments()` and `variables()` have given; without settings the defaults.

    Raises:
        BadOptions: the settings are not such, or a listener is none.
    """
    parser = argparse.ArgumentParser(prog="python -m app.gateway", description="A worker of the data plane.")
    parser.add_argument("--data-dir", type=Path, required=True)
    parser.add_argument("--worker", required=True, help="name of this worker, and of its spool")
    parser.add_argument("--fd", type=int, required=True, help="inherited listening socket")
    parser.add_argument("--stdout-fd", type=int, default=1, help="where an access log to - goes")
    own_text = "HOST:PORT of another listener of ours, where no arm may be"
    parser.add_argument("--own", metavar="HOST:PORT", action="append", default=[], help=own_text)
    given = parser.parse_args(arguments)
    try:
        settings = msgspec.json.decode(environment.get(SETTINGS_VARIABLE, "{}"), type=GatewaySettings)
    except msgspec.MsgspecError as error:
        raise BadOptions(f"{SETTINGS_VARIABLE} does not hold settings: {error}") from error
    own = _listeners(given.own)
    redis_url = environment.get(REDIS_VARIABLE) or None
    return Options(given.data_dir, given.worker, given.fd, settings, given.stdout_fd, own, redis_url)


def _listeners(texts: Sequence[str]) -> Listeners:
    try:
        return frozenset(read_listener(text) for text in texts)
    except ValueError as error:
        raise BadOptions(f"--own {error}") from error
