"""Where does each setting come from? A flag, else a KINGMAKER_* variable, else the configuration file."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from app.gateway.settings import GatewaySettings
from app.limits import limits_of_file, limits_of_flags, limits_of_variables
from app.settings import BadSettings, Settings

if TYPE_CHECKING:
    from app.config import Configuration

_SERVER: dict[str, type] = {
    "host": str,
    "gateway_port": int,
    "control_port": int,
    "data_dir": str,
    "database_url": str,
    "redis_url": str,
    "workers": int,
}
"""What the mapping `server` of a file may name, and of which type."""


def settings_from(
    given: Mapping[str, Any], config: Path | None, limits: Iterable[str], environment: Mapping[str, str]
) -> Settings:
    """The settings of a process.

    `given` has those that a flag or its variable has given, and None for others; `limits` the --limit flags.

    Raises:
        BadSettings, ConfigError: a source that cannot be read, or a value that cannot be.
    """
    told = {name: value for name, value in given.items() if value is not None}
    by_hand = limits_of_variables(environment) | limits_of_flags(limits)
    if config is None:
        return Settings(**told, gateway=GatewaySettings(**by_hand))
    content = _read(config)
    server = _server(content.server, str(config))
    gateway = GatewaySettings(**limits_of_file(content.gateway, str(config)) | by_hand)
    return Settings(**{**server, **told}, config=config, routes=content.routes, gateway=gateway)


def _read(config: Path) -> Configuration:
    from app.config import read_configuration  # noqa: PLC0415  # YAML is slow to load

    return read_configuration(config)


def _server(content: Mapping[Any, object], source: str) -> dict[str, Any]:
    for name, value in content.items():
        where = f"{source}: server.{name}"
        if name not in _SERVER:
            raise BadSettings(f"{where} must be a known setting ({', '.join(_SERVER)}), got {name!r}")
        if type(value) is not _SERVER[name]:
            kind = {str: "a text", int: "a whole number"}[_SERVER[name]]
            raise BadSettings(f"{where} must be {kind}, got {value!r}")
    return {name: Path(str(value)) if name == "data_dir" else value for name, value in content.items()}
