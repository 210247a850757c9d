"""How is a limit of the gateway written in a flag, a variable or a file? Each error names where it stood."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Any

from app.durations import parse_duration
from app.gateway.settings import NETWORKS, BadLimit, GatewaySettings
from app.settings import BadSettings

Limits = dict[str, Any]
"""Some settings of the gateway, by name, each within its bounds."""

PREFIX = "KINGMAKER_GATEWAY_"
_NAMES = GatewaySettings.__struct_fields__
_SIZES = {"": 1, "KiB": 1024, "MiB": 1024**2, "GiB": 1024**3}
_SIZE = re.compile(r"([0-9]{1,15}) ?(|KiB|MiB|GiB)")
_NUMBER = re.compile(r"[0-9]{1,12}(\.[0-9]{1,6})?")
_SWITCH = {"true": True, "false": False}
_OF_OTHERS = re.compile(r"PORT|PORT_.*|SERVICE_.*")
"""The port's own variable, and what Kubernetes sets in every container beside such a service."""


def limits_of_flags(pairs: Iterable[str]) -> Limits:
    """What `--limit NAME=VALUE` says; of a name that stands twice the last one.

    Raises:
        BadSettings: it is no pair, no known name, or not a value that can be.
    """
    found: Limits = {}
    for pair in pairs:
        name, equals, text = pair.partition("=")
        if not equals:
            raise BadSettings(f"--limit must be NAME=VALUE, got {pair!r}")
        found |= _limit(name, text, f"--limit {name}")
    return found


def limits_of_variables(environment: Mapping[str, str]) -> Limits:
    """What KINGMAKER_GATEWAY_… variables say; an empty one says nothing.

    Raises:
        BadSettings: a variable of that prefix has no known name, or a value that cannot be.
    """
    found: Limits = {}
    for variable, text in environment.items():
        name = variable.removeprefix(PREFIX)
        if name != variable and text and not _OF_OTHERS.fullmatch(name):
            found |= _limit(name.lower(), text, variable)
    return found


def limits_of_file(content: Mapping[Any, object], source: str) -> Limits:
    """What the mapping `gateway` of a file says.

    Raises:
        BadSettings: a name that is not known, or a value that cannot be.
    """
    found: Limits = {}
    for name, value in content.items():
        found |= _limit(str(name), value, f"{source}: gateway.{name}")
    return found


def _limit(name: str, value: object, where: str) -> Limits:
    if name not in _NAMES:
        raise BadSettings(f"{where} must be a known limit ({', '.join(_NAMES)}), got {name!r}")
    try:
        limit: Limits = {name: _reader(name)(value)}
        GatewaySettings(**limit)
    except BadLimit as error:
        raise BadSettings(f"{where} {error.message}") from error
    except ValueError as error:
        raise BadSettings(f"{where} {error}, got {value!r}") from error
    return limit


def _reader(name: str) -> Callable[[object], object]:
    if name in NETWORKS:
        return partial(_names, kind="networks")
    if name == "cors_origins":
        return partial(_names, kind="origins")
    if name.endswith("_seconds"):
        return _seconds
    if name.endswith(("_bytes", "_rate")):
        return _bytes
    others = {"private_arms": _switch, "access_log": _text, "traces": _text, "trace_ratio": _share}
    return others.get(name, _count)


def _names(value: object, kind: str) -> tuple[str, ...]:
    """A list, or names between commas."""
    if isinstance(value, str):
        return tuple(part.strip() for part in value.split(",") if part.strip())
    if isinstance(value, list) and all(isinstance(part, str) for part in value):
        return tuple(value)
    raise ValueError(f"must be a list of {kind}")


def _seconds(value: object) -> float:
    """A number of seconds, or a duration with its unit."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        return float(value)
    if isinstance(value, str) and _NUMBER.fullmatch(value):
        return float(value)
    try:
        return parse_duration(str(value)) / 1000
    except ValueError:
        raise ValueError("must be seconds, or a duration such as 500ms, 10s or 1m") from None


def _bytes(value: object) -> int:
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    found = _SIZE.fullmatch(value) if isinstance(value, str) else None
    if found is None:
        raise ValueError("must be bytes, such as 65536, 64KiB or 1MiB")
    return int(found[1]) * _SIZES[found[2]]


def _count(value: object) -> int:
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    if isinstance(value, str) and re.fullmatch(r"-?[0-9]{1,15}", value):
        return int(value)
    raise ValueError("must be a whole number")


def _share(value: object) -> float:
    if isinstance(value, int | float) and not isinstance(value, bool):
        return float(value)
    if isinstance(value, str) and _NUMBER.fullmatch(value):
        return float(value)
    raise ValueError("must be a number")


def _switch(value: object) -> bool:
    found = value if isinstance(value, bool) else _SWITCH.get(str(value).lower())
    if found is None:
        raise ValueError("must be true or false")
    return found


def _text(value: object) -> str | None:
    """A text; an empty one, or null, is none."""
    if value is not None and not isinstance(value, str):
        raise ValueError("must be a text")
    return value or None
