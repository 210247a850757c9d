"""Which routes does a file declare? YAML (so JSON too) with one route, or with a list under `routes`."""

from __future__ import annotations

from typing import Any

import yaml

Document = dict[str, Any]

_UNFIT = (ValueError, ArithmeticError, LookupError, AttributeError)
"""What PyYAML lets through for a value that its tag cannot be, such as the date 2026-13-45."""


class ConfigError(ValueError):
    """A file that declares no routes in a form that can be read; the message names file and line."""


def load_documents(text: str, source: str) -> list[Document]:
    """The routes that a text declares, not checked yet. `source` names it in messages.

    Raises:
        ConfigError: it is not YAML, names a key twice, or holds neither a route nor a list of them.
    """
    try:
        content = yaml.load(text, _Loader)  # noqa: S506 - a safe loader that also refuses repeated keys
    except yaml.YAMLError as error:
        raise ConfigError(f"{source} is not YAML: {_where(error)}") from error
    except RecursionError as error:
        raise ConfigError(f"{source} is nested too deeply") from error
    except _UNFIT as error:
        raise ConfigError(f"{source} is not YAML: a value does not fit its type: {error}") from error
    return _documents(content, source)


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


def _documents(content: object, source: str) -> list[Document]:
    if not isinstance(content, dict):
        kind = "nothing" if content is None else type(content).__name__
        raise ConfigError(f"{source} must hold one route or a list under `routes`, got {kind}")
    if "routes" not in content:
        return [content]
    routes = content["routes"]
    if extra := sorted(str(key) for key in content if key != "routes"):
        raise ConfigError(f"{source} must hold nothing beside `routes`, got {', '.join(extra)}")
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
