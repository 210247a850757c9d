"""How is a condition of an override written on one line? `ATTRIBUTE OP VALUE`, as in `unit in u1,u2`.

The values of `in` and `not_in` stand between commas, or are a list in JSON. All other operators have one: the
whole rest of the line, or a text in double quotes; `exists` needs none. What is read of a request is text, so
values are text. Numbers, true and false are what they are in JSON where there is an order, and where it is a
feature of the context that is compared.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from math import isfinite
from typing import Any

Scalar = str | float | bool

_LISTS = ("in", "not_in")
_EQUALITIES = ("equals", "not_equals", *_LISTS)
_TYPED = ("lt", "lte", "gt", "gte", "exists")
_SHOWN_VALUES = 5
_EXACT = 2**53


def parse_condition(text: str) -> dict[str, Any]:
    """The condition that a line says, as the control plane takes it, not checked.

    Raises:
        ValueError: the line has no operator, or a list in JSON that is none.
    """
    attribute, op, rest = [*text.split(None, 2), "", "", ""][:3]
    if not op:
        raise ValueError(f"must be ATTRIBUTE OP VALUE, as in 'unit in u1,u2', got {text!r}")
    return {"attribute": attribute, "op": op, "values": _values(attribute, op, rest.strip())}


def write_condition(condition: Mapping[str, Any], most: int = _SHOWN_VALUES) -> str:
    """The line that says it; of more than so many values the first ones, and how many there are."""
    attribute, op, values = condition["attribute"], condition["op"], condition["values"]
    shown = [_written(value, attribute, op) for value in values[:most]]
    line = ",".join(shown)
    if op in _LISTS and _values(attribute, op, line) != values[:most]:
        line = json.dumps(values[:most], ensure_ascii=False)
    more = f", … {len(values)} in all" if len(values) > most else ""
    return f"{attribute} {op} {line}{more}".rstrip()


def scalar(text: str) -> Scalar:
    """A number, true or false as JSON has them, text in double quotes, or else the text itself."""
    try:
        value = json.loads(text)
        is_scalar = isinstance(value, str | bool) or (isinstance(value, int | float) and isfinite(value))
    except (ValueError, OverflowError, RecursionError):
        return text
    return value if is_scalar else text


def _values(attribute: str, op: str, text: str) -> list[Any]:
    read = scalar if _is_typed(attribute, op) else _unquoted
    if not text:
        return []
    if op not in _LISTS:
        return [read(text)]
    if not text.startswith("["):
        return [read(part.strip()) for part in text.split(",")]
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, list):
        raise ValueError(f"must hold values between commas, or a list in JSON, got {text!r}")
    return found


def _is_typed(attribute: str, op: str) -> bool:
    return op in _TYPED or (op in _EQUALITIES and attribute.startswith("context."))


def _unquoted(text: str) -> str:
    value = scalar(text)
    return value if isinstance(value, str) else text


def _written(value: Scalar, attribute: str, op: str) -> str:
    if isinstance(value, float) and value.is_integer() and abs(value) < _EXACT:
        return str(int(value))
    if isinstance(value, str) and value.isprintable() and _values(attribute, op, value.strip()) == [value]:
        return value
    return json.dumps(value, ensure_ascii=False)
