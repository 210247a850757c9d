"""What has a route's bandit learnt, and how does it divide the traffic?"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any

import typer
from rich.console import RenderableType

from app.commands.answers import connect, show
from app.commands.options import DEFAULT_SERVER, Json, Key, Route, Server
from app.tables import cell, facts, interval, moment, number, percent, table


def get_bandit(route: Route, server: Server = DEFAULT_SERVER, key: Key = None, as_json: Json = False) -> None:
    """What the bandit has learnt, and how it divides traffic."""
    with connect(server, key) as control:
        show(control.get("routes", route, "bandit"), as_json, _draw)


def rebuild(
    route: Route,
    reason: Annotated[
        str, typer.Option("--reason", metavar="TEXT", show_default=False, help="Why, for the timeline.")
    ],
    server: Server = DEFAULT_SERVER,
    key: Key = None,
    as_json: Json = False,
) -> None:
    """Forget what the bandit has learnt, and learn it anew.

    Until that is done, which takes a second for about ten thousand decisions, the champion answers.
    """
    with connect(server, key) as control:
        show(control.post("routes", route, "bandit", "rebuild", body={"reason": reason}), as_json, _draw)


def _draw(bandit: dict[str, Any]) -> Iterator[RenderableType]:
    yield facts(_facts(bandit))
    yield table(
        ["arm", "share (bp)", "pulls", "rewards", "worth now", "effective", "warm", "mean reward"],
        [_arm_row(arm) for arm in bandit["arms"]],
    )
    if bandit["segments"]:
        arms = [arm["arm"] for arm in bandit["arms"]]
        rows = [_segment_row(segment, arms) for segment in bandit["segments"]]
        yield table(["segment", "value", "n", *(f"{arm} (bp)" for arm in arms)], rows)
    if bandit["arms"]:
        yield table(["coefficient", *(arm["arm"] for arm in bandit["arms"])], _coefficients(bandit["arms"]))


def _facts(bandit: dict[str, Any]) -> dict[str, object]:
    waiting, reward = bandit["pending"], bandit["reward"]
    since = f", the first due {moment(waiting['first_due'])}" if waiting["first_due"] else ""
    found = {
        "route": bandit["route"],
        "mode": bandit["mode"],
        "reward": f"{reward['expression']} (without an outcome {number(reward['default'])})",
        "floor (bp)": bandit["floor"],
        "caps (bp)": bandit["caps"],
        "discount per day": bandit["discount"],
        "warm-up": bandit["warm_up"],
        "fault": _fault(bandit),
        "learning since": moment(bandit["learning_since"]),
        "learned at": moment(bandit["learned_at"]),
        "published at": moment(bandit.get("published_at")),
        "pending": f"{waiting['decisions']}{since}",
        "unusable": bandit["unusable"],
    }
    return found | _apprentice(bandit["apprentice"])


def _fault(bandit: dict[str, Any]) -> str:
    """Gateways choose by what they were told before, until they are told of a fault."""
    if not bandit["fault"]:
        return "none"
    published = bandit.get("published_at")
    who = f"gateways may still choose by what was published at {moment(published)}, then the champion answers"
    return f"{who if published else 'the champion answers'}: {bandit['fault']}"


def _apprentice(totals: dict[str, Any] | None) -> dict[str, object]:
    """An apprentice has no say: where it would have chosen otherwise, nothing is known, which counts as 0."""
    if totals is None:
        return {}
    earned = f"at least {number(totals['earned'])} of {number(totals['actual'])}"
    if share := percent(totals["share_of_reward"]):
        earned = f"{earned} ({share})"
    return {
        "decisions of others": totals["decisions"],
        "agreement": percent(totals["agreement"]),
        "would have earned": f"{earned}, if no reward is negative",
    }


def _arm_row(arm: dict[str, Any]) -> tuple[object, ...]:
    names = ("arm", "share", "pulls", "rewards", "worth", "effective_samples", "warm", "mean_reward")
    return tuple(arm.get(name) for name in names)


def _segment_row(segment: dict[str, Any], arms: list[str]) -> list[object]:
    value = segment["value"]
    shown = "(missing)" if value is None else cell(value)
    return [segment["feature"], shown, segment["n"], *(segment["shares"][arm] for arm in arms)]


def _coefficients(arms: list[dict[str, Any]]) -> Iterator[list[object]]:
    """A row for each column of the context: what it adds to each arm's reward, with 95 % intervals."""
    for found in zip(*(arm["coefficients"] for arm in arms), strict=True):
        yield [found[0]["column"], *(interval(one) for one in found)]
