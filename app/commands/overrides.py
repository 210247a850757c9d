"""Who is pinned to which arm, until when, and which arm would a request get?"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any

import typer
from rich.console import RenderableType

from app.commands.answers import connect, show
from app.commands.conditions import parse_condition, scalar, write_condition
from app.commands.options import DEFAULT_SERVER, Json, Key, Route, Server
from app.durations import parse_duration
from app.tables import cell, facts, moment, percent, table

Reason = Annotated[
    str, typer.Option("--reason", metavar="TEXT", show_default=False, help="Why, for the timeline.")
]
Unit = Annotated[
    str | None, typer.Option("--unit", metavar="UNIT", show_default=False, help="Whose request it is.")
]
Headers = Annotated[
    list[str] | None,
    typer.Option("--header", metavar="'NAME: VALUE'", show_default=False, help="One of it; repeatable."),
]
Features = Annotated[
    list[str] | None,
    typer.Option(
        "--context", metavar="NAME=VALUE", show_default=False, help="A declared feature; repeatable."
    ),
]
Path = Annotated[
    str | None,
    typer.Option("--path", metavar="PATH", show_default=False, help="With its query, if it has one."),
]
Method = Annotated[
    str | None, typer.Option("--method", metavar="METHOD", show_default=False, help="As in POST.")
]
Force = Annotated[
    str | None,
    typer.Option("--force", metavar="ARM", show_default=False, help="The arm that it asks for."),
]
At = Annotated[
    str | None,
    typer.Option("--at", metavar="TIME", show_default="now", help="When it comes, as 2026-01-31T12:00:00Z."),
]
_DRAWN = "drawn by each request"


def add(
    route: Route,
    arm: Annotated[str, typer.Argument(metavar="ARM", show_default=False, help="The arm that answers.")],
    reason: Reason,
    when: Annotated[
        list[str] | None,
        typer.Option(
            "--when",
            metavar="CONDITION",
            show_default=False,
            help="ATTRIBUTE OP VALUE, as in 'unit in u1,u2' or 'header.X-App semver_lt 2.1.0'; "
            "repeatable: all must hold. Without any, everybody is pinned.",
        ),
    ] = None,
    share: Annotated[
        int | None,
        typer.Option(
            "--share", metavar="BP", show_default="10000, all", help="How many of the units, in basis points."
        ),
    ] = None,
    priority: Annotated[
        int | None,
        typer.Option("--priority", metavar="N", show_default="100", help="The highest comes first."),
    ] = None,
    expires: Annotated[
        str | None,
        typer.Option(
            "--expires", metavar="TIME", show_default="never", help="Until when, as 2026-01-31T12:00:00Z."
        ),
    ] = None,
    lasting: Annotated[
        str | None,
        typer.Option("--for", metavar="DURATION", show_default=False, help="Or for how long, as in 2h."),
    ] = None,
    server: Server = DEFAULT_SERVER,
    key: Key = None,
    as_json: Json = False,
) -> None:
    """Pin requests to an arm.

    Attributes are unit, path, method, header.NAME and context.NAME.

    \b
    Operators:
      equals, not_equals                a value
      in, not_in                        values between commas
      starts_with, ends_with, contains  text
      matches                           an expression of RE2
      lt, lte, gt, gte                  a number
      semver_lt, semver_gte             a version
      exists                            nothing, true or false
    """  # noqa: D301  # \b keeps the lines of a paragraph apart in the help
    body = {
        "arm": arm,
        "when": [_condition(line) for line in when or ()],
        "share": share,
        "priority": priority,
        "expires_at": _expiry(expires, lasting),
        "reason": reason,
    }
    given = {name: value for name, value in body.items() if value is not None}
    with connect(server, key) as control:
        show(control.post("routes", route, "overrides", body=given), as_json, _draw_one)


def list_overrides(
    route: Route, server: Server = DEFAULT_SERVER, key: Key = None, as_json: Json = False
) -> None:
    """A route's overrides, the first to be asked first.

    With what each has pinned lately.
    """
    with connect(server, key) as control:
        show(control.get("routes", route, "overrides"), as_json, _draw_list)


def remove(
    route: Route,
    override_id: Annotated[
        int,
        typer.Argument(
            metavar="ID", show_default=False, help="Its id, as `kingmaker override list` shows it."
        ),
    ],
    reason: Reason,
    server: Server = DEFAULT_SERVER,
    key: Key = None,
    as_json: Json = False,
) -> None:
    """End an override."""
    with connect(server, key) as control:
        control.delete("routes", route, "overrides", str(override_id), reason=reason)
    show({"removed": override_id}, as_json, lambda answer: [f"override {answer['removed']} is removed"])


def dry_run(
    route: Route,
    unit: Unit = None,
    header: Headers = None,
    context: Features = None,
    path: Path = None,
    method: Method = None,
    force: Force = None,
    at: At = None,
    server: Server = DEFAULT_SERVER,
    key: Key = None,
    as_json: Json = False,
) -> None:
    """Say which arm a request would get, and why.

    Nothing is sent, and nothing is recorded.
    """
    features = dict(_pair(each, "=", "--context", "NAME=VALUE") for each in context or ())
    body = {
        "unit": unit,
        "headers": dict(_pair(each, ":", "--header", "'NAME: VALUE'") for each in header or ()),
        "context": {name: scalar(value) for name, value in features.items()},
        "path": path,
        "method": method,
        "force_arm": force,
        "at": at,
    }
    given = {name: value for name, value in body.items() if value not in (None, {})}
    with connect(server, key) as control:
        show(control.post("routes", route, "dry-run", body=given), as_json, _draw_dry_run)


def _condition(line: str) -> dict[str, Any]:
    try:
        return parse_condition(line)
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint="'--when'") from error


def _expiry(expires: str | None, lasting: str | None) -> str | None:
    if lasting is None:
        return expires
    if expires is not None:
        raise typer.BadParameter("--expires says until when, --for for how long: give one of them")
    try:
        return (datetime.now(UTC) + timedelta(milliseconds=parse_duration(lasting))).isoformat()
    except (ValueError, OverflowError) as error:
        raise typer.BadParameter(str(error), param_hint="'--for'") from error


def _pair(text: str, separator: str, option: str, form: str) -> tuple[str, str]:
    name, found, value = text.partition(separator)
    if not found or not name.strip():
        raise typer.BadParameter(f"must be {form}, got {text!r}", param_hint=f"'{option}'")
    return name.strip(), value.strip()


def _draw_one(override: dict[str, Any]) -> Iterator[RenderableType]:
    yield facts(
        {
            "override": str(override["id"]),
            "arm": override["arm"],
            "when": _when(override["when"]),
            "share (bp)": override["share"],
            "priority": override["priority"],
            "expires": _expires(override),
            "reason": override["reason"],
        }
    )


def _draw_list(answer: dict[str, Any]) -> Iterator[RenderableType]:
    headings = ["id", "priority", "arm", "when", "share (bp)", "state", "expires"]
    headings += ["matched (1 h)", "(24 h)", "last", "who", "reason"]
    rows = [_row(override) for override in answer["overrides"]]
    yield table(headings, rows) if rows else "no overrides"


def _row(override: dict[str, Any]) -> tuple[object, ...]:
    matched = override["matched"]
    return (
        str(override["id"]),
        override["priority"],
        override["arm"],
        _when(override["when"]),
        override["share"],
        override["state"],
        _expires(override),
        matched["last_hour"],
        matched["last_day"],
        moment(matched["last_at"]),
        override["author"],
        override["reason"],
    )


def _when(conditions: Sequence[dict[str, Any]]) -> str:
    return "; ".join(write_condition(condition) for condition in conditions) or "always"


def _expires(override: dict[str, Any]) -> str:
    return moment(override["expires_at"]) or "never"


def _draw_dry_run(answer: dict[str, Any]) -> Iterator[RenderableType]:
    chances = answer["probabilities"]
    context = answer["context"]
    yield facts(
        {
            "unit": answer["unit"],
            "arm": answer["arm"] or _DRAWN,
            "reason": answer["reason"] or _DRAWN,
            "override": answer["override"],
            "propensity": percent(answer["propensity"]),
            "probabilities": ", ".join(f"{arm} {percent(chance)}" for arm, chance in chances.items()),
            "context": context["values"],
            "missing features": context["missing"],
            "unknown features": context["unknown"],
        }
    )
    yield table(["step", "arm", "outcome", "why"], [_step_row(step) for step in answer["steps"]])


def _step_row(step: dict[str, Any]) -> tuple[object, ...]:
    match step["step"]:
        case "override":
            name = f"override {step['override']} (priority {step['priority']})"
            return name, step["arm"], step["outcome"], _override_why(step)
        case "split":
            share = step["share"]
            arm = None if share is None else share["arm"]
            return "split", arm, step["outcome"], _split_why(step)
        case name:
            since = f"since {step['since']}" if step.get("since") else None
            return name.replace("_", " "), step.get("arm"), step["outcome"], since


def _override_why(step: dict[str, Any]) -> str | None:
    if (miss := step["miss"]) is not None:
        value = "nothing" if miss["value"] is None else cell(miss["value"])
        return f"{write_condition(miss)}: it has {value}"
    if step["chance"] is not None:
        return f"pins {percent(step['chance'])} of such requests"
    if step["bucket"] is not None:
        where = "in" if step["bucket"] < step["share"] else "outside"
        return f"bucket {step['bucket']} is {where} its {step['share']} bp"
    return None


def _split_why(step: dict[str, Any]) -> str | None:
    share = step["share"]
    if share is None:
        return None
    return f"bucket {step['bucket']} is in [{share['start']}, {share['end']})"
