"""The reference of settings and fields says what the code does: every name, its default, its bounds."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import pytest
from pydantic import BaseModel
from typer.main import get_command

from app.cli import app
from app.config import load_configuration
from app.control.documents import BadDeclaration, parse_route
from app.control.schemas import RouteDocument
from app.durations import format_duration, parse_duration
from app.gateway.settings import BOUNDS, GatewaySettings
from app.limits import limits_of_file
from app.settings import BadSettings, Settings

PAGE = (Path(__file__).parents[2] / "docs/configuration.md").read_text()
_RANGE = re.compile(r"`([^`]+)` … (below )?`([^`]+)`")
_NOTHING = "—"


def _rows(heading: str) -> dict[str, dict[str, str]]:
    """The table under a heading: its rows by their first cell."""
    section = PAGE.split(f"\n## {heading}", 1)[1].split("\n## ", 1)[0]
    lines = [line.strip("|").split("|") for line in section.splitlines() if line.startswith("|")]
    names, _, *rows = [[cell.strip() for cell in line] for line in lines]
    return {row[0].strip("`"): dict(zip(names, row, strict=True)) for row in rows}


ROUTE, GATEWAY, SERVER = _rows("A route"), _rows("`gateway`"), _rows("`server`")
RANGES = {name: found for name, row in ROUTE.items() if (found := _RANGE.fullmatch(row["bounds"]))}

SOUND: dict[str, Any] = {
    "route": "ads",
    "arms": [
        {"name": "dark", "url": "http://127.0.0.1:9000", "role": "shadow"},
        {"name": "old", "url": "http://127.0.0.1:9001", "role": "champion"},
    ],
    "split": {"weights": {"old": 10_000}},
    "metrics": [{"name": "sales", "kind": "binary"}],
    "policy": {"minimum_days": 1, "winning_days": 1, "guardrails": [{"metric": "error"}]},
    "upstream": {
        "ejection": {"base_time": "1ms"},
        "health_check": {"path": "/", "interval": "1h"},
    },
}
"""A route that leaves each field room up to its bounds, whatever other fields say."""

LEARNING = {**SOUND, "split": {"mode": "thompson", "reward": {"metric": "sales"}}}
STICKY = {**SOUND, "unit": {"header": "X-User"}, "stickiness": {"mode": "first_arm"}}
BASES = {"split.reward": LEARNING, "stickiness": STICKY}
"""The same with a bandit, and with first arms, for the fields that only those have."""


def _fields(model: type[BaseModel], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Every field of a document with its default, down to those that hold no document."""
    for name, field in model.model_fields.items():
        place = f"{prefix}{field.alias or name}"
        part, is_list = _document_in(field.annotation)
        if part is not None:
            yield from _fields(part, f"{place}[]." if is_list else f"{place}.")
        else:
            yield place, ... if field.is_required() else field.default


def _document_in(annotation: Any) -> tuple[type[BaseModel] | None, bool]:
    """The document that a field holds, or a list of; a mapping is shown as one field."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation, False
    is_list = getattr(annotation, "__origin__", None) is list
    if getattr(annotation, "__origin__", None) is dict:
        return None, False
    found = [part for part, _ in map(_document_in, get_args(annotation)) if part is not None]
    return (found[0] if found else None), is_list


FIELDS = dict(_fields(RouteDocument))


def _set(document: dict[str, Any], name: str, value: object) -> dict[str, Any]:
    """A copy of a document with one field set; of a list, in its first item."""
    copy: dict[str, Any] = json.loads(json.dumps(document))
    *path, last = name.split(".")
    place: Any = copy
    for part in path:
        place = place.setdefault(part.removesuffix("[]"), {})
        place = place[0] if part.endswith("[]") else place
    place[last] = value
    return copy


def _is_refused(name: str, value: object) -> bool:
    """Whether a route is refused for this field of this value."""
    try:
        parse_route(_set(BASES.get(name.rpartition(".")[0], SOUND), name, value))
    except BadDeclaration as refused:
        return name.replace("[]", ".0") in {error.field for error in refused.errors}
    return False


def _ends(name: str) -> tuple[Any, Any, Any, Any]:
    """Below the least, the least, the most, and above the most."""
    found = RANGES[name]
    low, high, is_open = found[1], found[3], found[2] is not None
    if isinstance(FIELDS[name], float) or name == "arms[].sample":
        least, most, step = float(low), float(high), 0.0001
        return (
            least - step, least, most - step if is_open else most, most if is_open else most + step
        )  # fmt: skip
    if low.isdigit():
        return int(low) - 1, int(low), int(high), int(high) + 1
    least_ms, most_ms = parse_duration(low), parse_duration(high)
    return f"{least_ms - 1}ms", f"{least_ms}ms", f"{most_ms}ms", f"{most_ms + 1}ms"


def _shown(default: Any) -> str:
    """A default as the page shows it."""
    if default is ...:
        return "required"
    if default is None:
        return _NOTHING
    return f"`{default if isinstance(default, str) else json.dumps(default)}`"


def test_every_field_of_a_route_is_there_in_order_with_its_default() -> None:
    """And nothing that is none."""
    assert list(ROUTE) == list(FIELDS)
    assert {name: row["default"] for name, row in ROUTE.items()} == {
        name: _shown(default) for name, default in FIELDS.items()
    }


@pytest.mark.parametrize("name", RANGES)
def test_a_field_is_taken_up_to_its_bounds_and_refused_beyond(name: str) -> None:
    """As the page says."""
    below, least, most, above = _ends(name)
    taken = {str(value): not _is_refused(name, value) for value in (below, least, most, above)}
    assert list(taken.values()) == [False, True, True, False], taken


def test_every_number_of_a_route_has_bounds() -> None:
    """Whatever has a number or a duration as its default says how large it may be."""
    durations = [name for name, value in FIELDS.items() if re.fullmatch(r"[0-9.]+(ms|s|m|h|d)", str(value))]
    numbers = [name for name, value in FIELDS.items() if type(value) in (int, float)]
    assert {*durations, *numbers} <= set(RANGES)
    assert format_duration(parse_duration("24h")) == "24h"


def test_every_limit_of_the_gateway_is_there_with_default_and_bounds() -> None:
    """Written as a file may write them."""
    assert list(GATEWAY) == list(GatewaySettings.__struct_fields__)
    defaults = GatewaySettings()
    for name, row in GATEWAY.items():
        written = row["default"].strip("`")
        if written == _NOTHING:
            assert getattr(defaults, name) in ((), None), name
        else:
            assert limits_of_file({name: written}, "x") == {name: getattr(defaults, name)}
        found = _RANGE.fullmatch(row["bounds"])
        ends = found and tuple(limits_of_file({name: found[end]}, "x")[name] for end in (1, 3))
        assert ends == BOUNDS.get(name), name


def test_every_setting_of_the_processes_is_there() -> None:
    """With the flag and the variable that `serve` reads, its default and its bounds."""
    commands = get_command(app).commands  # type: ignore[attr-defined] # a typer app with several commands is a group
    options = {option.name: option for option in commands["serve"].params}
    assert {*SERVER, "config", "limit", "help"} >= set(options) >= {*SERVER}
    for name, row in SERVER.items():
        assert (row["flag"], row["variable"]) == (f"`{options[name].opts[0]}`", f"`{options[name].envvar}`")
        default = getattr(Settings(), name)
        assert row["default"] == (_NOTHING if default is None else f"`{default}`")
        if found := _RANGE.fullmatch(row["bounds"]):
            low, high = int(found[1]), int(found[3])
            for value in (low - 1, high + 1):
                beyond: dict[str, Any] = {name: value}
                with pytest.raises(BadSettings, match=re.escape(f"{name} must be in [{low}, {high}]")):
                    Settings(**beyond)


def test_the_file_on_the_page_is_one() -> None:
    """It declares what it shows."""
    example = re.search(r"```yaml\n(.*?)```", PAGE, re.DOTALL)
    assert example is not None
    configuration = load_configuration(example[1], "page")
    assert limits_of_file(configuration.gateway, "page")["body_bytes"] == 1_048_576
    assert set(configuration.server) <= set(SERVER)
    assert [parse_route(route).name for route in configuration.routes] == ["ad-bidder"]
