"""What does a configuration file hold? YAML (so JSON too) with one route, or with a list under `routes`.

Beside them, or alone, may stand `gateway` (limits of the gateway) and `server` (settings of the processes).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

Document = dict[str, Any]

_SETTINGS = ("gateway", "server")
_UNFIT = (ValueError, ArithmeticError, LookupError, AttributeError)
"""What PyYAML lets through for a value that its tag cannot be, such as the date 2026-13-45."""


class ConfigError(ValueError):
    """A file that holds nothing in a form that can be read; the message names file and line."""


@dataclass(frozen=True, slots=True)
class Configuration:
    """What a file holds, not checked yet: routes, and settings by name."""

    routes: tuple[Document, ...]
    gateway: Document = field(default_factory=dict)
    server: Document = field(default_factory=dict)


def read_configuration(path: Path) -> Configuration:
    """What a file holds.

    Raises:
        ConfigError: it cannot be read, or not as a configuration.
    """
    try:
        text = path.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"config {path} cannot be read: {error}") from error
    return load_configuration(text, str(path))


def load_configuration(text: str, source: str) -> Configuration:
    """What a text holds. `source` names it in messages.

    Raises:
        ConfigError: it is not YAML, names a key twice, or holds neither a route, a list of them nor settings.
    """
    try:
        content = yaml.load(text, _Loader)  # noqa: S506 - a safe loader that also refuses repeated keys
    except yaml.YAMLError as error:
        raise ConfigError(f"{source} is not YAML: {_where(error)}") from error
    except RecursionError as error:
        raise ConfigError(f"{source} is nested too deeply") from error
    except _UNFIT as error:
        raise ConfigError(f"{source} is not YAML: a value does not fit its type: {error}") from error
    return _configuration(content, source)


class _Loader(yaml.SafeLoader):
    """Safe, and a key that stands twice in a mapping is an error. Merged keys (`<<`) may be overridden."""

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        node = super().compose_mapping_node(anchor)
        seen: set[str] = set()
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode):
                continue
            if key.value in seen:
                problem = f"{key.value!r} stands twice"
                raise yaml.composer.ComposerError(None, None, problem, key.start_mark)
            seen.add(key.value)
        return node


def _configuration(content: object, source: str) -> Configuration:
    if not isinstance(content, dict):
        kind = "nothing" if content is None else type(content).__name__
        raise ConfigError(f"{source} must hold one route or a list under `routes`, got {kind}")
    settings = {name: _settings(name, content[name], source) for name in _SETTINGS if name in content}
    rest = {name: value for name, value in content.items() if name not in _SETTINGS}
    routes = _routes(rest, source) if rest or not settings else []
    return Configuration(tuple(routes), **settings)


def _settings(name: str, content: object, source: str) -> Document:
    if content is None:
        return {}
    if not isinstance(content, dict):
        raise ConfigError(f"{source}: {name} must hold settings by name, got {type(content).__name__}")
    return content


def _routes(content: Document, source: str) -> list[Document]:
    if "routes" not in content:
        return [content]
    routes = content["routes"]
    if extra := sorted(str(key) for key in content if key != "routes"):
        beside = " and ".join(f"`{name}`" for name in _SETTINGS)
        raise ConfigError(f"{source} must hold only {beside} beside `routes`, got {', '.join(extra)}")
    if not isinstance(routes, list):
        raise ConfigError(f"{source}: routes must be a list, got {type(routes).__name__}")
    for index, route in enumerate(routes):
        if not isinstance(route, dict):
            raise ConfigError(f"{source}: routes.{index} must be a route, got {type(route).__name__}")
    names = [route.get("route") for route in routes]
    if repeated := [name for index, name in enumerate(names) if name in names[:index] and name is not None]:
        raise ConfigError(f"{source}: routes must have different names, got {repeated[0]!r} twice")
    return routes


def _where(error: yaml.YAMLError) -> str:
    """The problem and its place, on one line."""
    mark = getattr(error, "problem_mark", None)
    problem = getattr(error, "problem", None) or str(error)
    place = f"line {mark.line + 1}, column {mark.column + 1}: " if mark is not None else ""
    return place + " ".join(str(problem).split())
