"""What a worker process is started with, as its parent says it and as it reads it."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec

from app.gateway.settings import GatewaySettings

SETTINGS_VARIABLE = "KINGMAKER_WORKER_SETTINGS"
"""Settings as JSON. Not an argument: `ps` shows those to everybody, and an address may hold a secret."""

DEFAULTS = GatewaySettings()


class BadOptions(ValueError):
    """What the parent says cannot be; the message names it."""


@dataclass(frozen=True, slots=True)
class Options:
    """One worker: data folder, name (also of its spool), inherited listening TCP socket, limits.

    `stdout_fd` is where an access log for standard output goes.
    """

    data_dir: Path
    worker: str
    listener_fd: int
    settings: GatewaySettings = DEFAULTS
    stdout_fd: int = 1

    def arguments(self) -> list[str]:
        """The command line, without settings."""
        return [
            *("--data-dir", str(self.data_dir)),
            *("--worker", self.worker),
            *("--fd", str(self.listener_fd)),
            *("--stdout-fd", str(self.stdout_fd)),
        ]

    def variables(self) -> dict[str, str]:
        """What is added to the environment: the settings."""
        return {SETTINGS_VARIABLE: msgspec.json.encode(self.settings).decode()}


def read_options(arguments: Sequence[str], environment: Mapping[str, str]) -> Options:
    """The options that `arguments()` and `variables()` have given; without settings the defaults.

    Raises:
        BadOptions: the settings are not such.
    """
    parser = argparse.ArgumentParser(prog="python -m app.gateway", description="A worker of the data plane.")
    parser.add_argument("--data-dir", type=Path, required=True)
    parser.add_argument("--worker", required=True, help="name of this worker, and of its spool")
    parser.add_argument("--fd", type=int, required=True, help="inherited listening socket")
    parser.add_argument("--stdout-fd", type=int, default=1, help="where an access log to - goes")
    given = parser.parse_args(arguments)
    try:
        settings = msgspec.json.decode(environment.get(SETTINGS_VARIABLE, "{}"), type=GatewaySettings)
    except msgspec.MsgspecError as error:
        raise BadOptions(f"{SETTINGS_VARIABLE} does not hold settings: {error}") from error
    return Options(given.data_dir, given.worker, given.fd, settings, given.stdout_fd)
