"""What has happened to a route, and on what evidence?"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import RenderableType

from app.commands.answers import connect, show
from app.commands.options import DEFAULT_SERVER, Json, Key, Route, Server
from app.commands.splits import BANDIT, by_bandit
from app.tables import facts, moment, percent, relative, shares, span, streak, table

if TYPE_CHECKING:
    from app.client import ControlPlane

Limit = Annotated[
    int | None,
    typer.Option(
        "--limit", metavar="N", min=1, show_default="the server's", help="How many at most, the newest."
    ),
]
Before = Annotated[
    int | None,
    typer.Option(
        "--before", metavar="ID", show_default=False, help="Only older ones than this: the next page."
    ),
]


def get_evaluations(
    route: Route,
    challenger: Annotated[
        str | None, typer.Option("--challenger", metavar="ARM", show_default=False, help="Only this one's.")
    ] = None,
    limit: Limit = None,
    before: Before = None,
    server: Server = DEFAULT_SERVER,
    key: Key = None,
    as_json: Json = False,
) -> None:
    """The runs of the policy: evidence, verdict, action."""
    with connect(server, key) as control:
        query = {"challenger": challenger, "limit": limit, "before": before}
        show(control.get("routes", route, "evaluations", **query), as_json, _draw_evaluations)


def get_metrics(
    route: Route,
    first: Annotated[
        str | None,
        typer.Option(
            "--from", metavar="DAY", show_default=False, help="The first day: a date, or a time in it."
        ),
    ] = None,
    last: Annotated[
        str | None,
        typer.Option(
            "--to", metavar="DAY", show_default=False, help="The last day: a date, or a time in it."
        ),
    ] = None,
    server: Server = DEFAULT_SERVER,
    key: Key = None,
    as_json: Json = False,
) -> None:
    """Decisions and values by day and assigned arm."""
    with connect(server, key) as control:
        show(control.get("routes", route, "metrics", **{"from": first, "to": last}), as_json, _draw_metrics)


def get_champion(
    route: Route,
    at: Annotated[
        str | None,
        typer.Option("--at", metavar="TIME", show_default="now", help="When, as 2026-01-31T12:00:00Z."),
    ] = None,
    server: Server = DEFAULT_SERVER,
    key: Key = None,
    as_json: Json = False,
) -> None:
    """Who was champion at a moment, since when, and why."""
    with connect(server, key) as control:
        answer = control.get("routes", route, "champion", at=at)
        learnt = set() if as_json else _learnt(control, route)
    show(answer, as_json, lambda answer: _draw_champion(answer, learnt))


def timeline(
    route: Route,
    limit: Limit = None,
    before: Before = None,
    server: Server = DEFAULT_SERVER,
    key: Key = None,
    as_json: Json = False,
) -> None:
    """What changed a route, newest first: who did it, and why."""
    with connect(server, key) as control:
        answer = control.get("routes", route, "timeline", limit=limit, before=before)
        now = None if as_json or before is not None else _mode(control, route)
    show(answer, as_json, lambda answer: _draw_timeline(answer, by_bandit(answer["timeline"], now)))


def _draw_evaluations(answer: dict[str, Any]) -> Iterator[RenderableType]:
    headings = [
        "id",
        "day",
        "challenger",
        "verdict",
        "action",
        "streak",
        "chance",
        "lift [95 % interval]",
        "loss (allowed)",
        "reason",
    ]
    rows = [
        (
            str(run["id"]),
            run["day"],
            run["challenger"],
            run["verdict"],
            run["action"],
            streak(run["streak"]),
            percent(run["chance_to_beat"]),
            relative(run["lift"]),
            _loss(run),
            run["reason"],
        )
        for run in answer["evaluations"]
    ]
    yield table(headings, rows) if rows else "no evaluations"
    yield from _next_page(answer)


def _loss(run: dict[str, Any]) -> str | None:
    if run["expected_loss"] is None:
        return None
    allowed = f" ({run['allowed_loss']:.4g})" if run["allowed_loss"] is not None else ""
    return f"{run['expected_loss']:.4g}{allowed}"


def _draw_metrics(answer: dict[str, Any]) -> Iterator[RenderableType]:
    rows = [row for day in answer["days"] for row in _metric_rows(day)]
    headings = ["day", "arm", "decisions", "deciding", "metric", "n", "sum", "mean", "late"]
    yield table(headings, rows) if rows else "nothing was counted in these days"


def _metric_rows(day: dict[str, Any]) -> Iterator[tuple[object, ...]]:
    counted = (day["day"], day["arm"], day["decisions"], day["deciding"])
    names = sorted({*day["metrics"], *day["late"]})
    for name in names:
        sums = day["metrics"].get(name, {"n": 0, "sum": 0.0, "mean": None})
        late = day["late"].get(name, {"n": 0})
        yield (*counted, name, sums["n"], sums["sum"], sums["mean"], late["n"])
    if not names:
        yield (*counted, None, None, None, None, None)


def _mode(control: ControlPlane, route: str) -> str:
    """What divides the route's traffic now."""
    return str(control.get("routes", route, "rollout")["mode"])


def _learnt(control: ControlPlane, route: str) -> set[int]:
    """The ids of the newest changes after which a bandit divided."""
    entries = control.get("routes", route, "timeline")["timeline"]
    return by_bandit(entries, _mode(control, route))


def _draw_champion(answer: dict[str, Any], learnt: set[int]) -> Iterator[RenderableType]:
    crowned, until = answer["crowned"], answer["until"]
    yield facts(
        {
            "route": answer["route"],
            "at": moment(answer["at"]),
            "champion": answer["champion"],
            "since": f"{moment(answer['since'])} ({span(answer['since'], answer['at'])} before)",
            "until": moment(until) if until is not None else "still",
            "crowned by": f"{crowned['actor']} ({crowned['kind']})",
            "reason": crowned["reason"],
            "split (bp)": _split(crowned, learnt),
            "evaluation": crowned["evaluation"],
        }
    )


def _split(entry: dict[str, Any], learnt: set[int]) -> str:
    return BANDIT if entry["id"] in learnt else shares(entry["weights"])


def _draw_timeline(answer: dict[str, Any], learnt: set[int]) -> Iterator[RenderableType]:
    rows = [
        (
            str(entry["id"]),
            moment(entry["at"]),
            entry["kind"],
            entry["actor"],
            entry["challenger"],
            entry["champion"],
            _split(entry, learnt),
            entry["reason"],
        )
        for entry in answer["timeline"]
    ]
    headings = ["id", "at", "what", "who", "challenger", "champion", "split (bp)", "reason"]
    yield table(headings, rows) if rows else "nothing has happened"
    yield from _next_page(answer)


def _next_page(answer: dict[str, Any]) -> Iterator[RenderableType]:
    if answer["next"] is not None:
        yield f"older ones: --before {answer['next']}"
