"""How do shadow arms agree with the arms that answer?"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any

import typer
from rich.console import RenderableType

from app.commands.answers import connect, show
from app.commands.options import DEFAULT_SERVER, Json, Key, Route, Server
from app.tables import percent, table


def get_shadow(
    route: Route,
    first: Annotated[
        str | None,
        typer.Option(
            "--from", metavar="TIME", show_default="a day before the end", help="As 2026-01-31T12:00:00Z."
        ),
    ] = None,
    last: Annotated[
        str | None, typer.Option("--to", metavar="TIME", show_default="now", help="As --from.")
    ] = None,
    server: Server = DEFAULT_SERVER,
    key: Key = None,
    as_json: Json = False,
) -> None:
    """How shadow arms agree with the arms that answered.

    Both were sent the same requests.
    """
    with connect(server, key) as control:
        show(control.get("routes", route, "shadow", **{"from": first, "to": last}), as_json, _draw_shadow)


def _draw_shadow(answer: dict[str, Any]) -> Iterator[RenderableType]:
    arms = answer["arms"]
    if not arms:
        yield "no copies were sent in this time"
        return
    headings = ["arm", "copies", "answered", "same status", "same body", "latency (ms)", "primary's (ms)"]
    yield table(headings, [_arm_row(arm) for arm in arms])
    predictions = [
        _prediction_row(arm["arm"], name, found) for arm in arms for name, found in arm["predictions"].items()
    ]
    if predictions:
        yield table(["arm", "prediction", "n", "missing", "equal", "mean difference"], predictions)
    labels = [
        (arm["arm"], name, pair["primary"], pair["shadow"], pair["n"])
        for arm in arms
        for name, found in arm["predictions"].items()
        for pair in found["labels"]
    ]
    if labels:
        yield table(["arm", "prediction", "primary", "shadow", "n"], labels)


def _arm_row(arm: dict[str, Any]) -> tuple[object, ...]:
    shares = (percent(arm[name]) for name in ("answered", "same_status", "same_body"))
    return (arm["arm"], arm["copies"], *shares, arm["latency_ms"], arm["primary_latency_ms"])


def _prediction_row(arm: str, name: str, found: dict[str, Any]) -> tuple[object, ...]:
    difference = found["mean_absolute_difference"]
    return (arm, name, found["n"], found["missing"], percent(found["equal"]), difference)
