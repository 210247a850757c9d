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
    """What the bandit has learnt of each arm, and its shares, also segment by segment."""
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
    """Forget what the bandit has learnt, and learn it anew from the log.

    Until that is done, which takes a second for about ten thousand decisions, the champion answers.
    """
    with connect(server, key) as control:
        show(control.post("routes", route, "bandit", "rebuild", body={"reason": reason}), as_json, _draw)


def _draw(bandit: dict[str, Any]) -> Iterator[RenderableType]:
    yield facts(_facts(bandit))
    yield table(
        ["arm", "share (bp)", "pulls", "rewards", "effective", "warm", "mean reward"],
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
        "fault": f"the champion answers: {bandit['fault']}" if bandit["fault"] else "none",
        "learning since": moment(bandit["learning_since"]),
        "learned at": moment(bandit["learned_at"]),
        "pending": f"{waiting['decisions']}{since}",
        "unusable": bandit["unusable"],
    }
    return found | _apprentice(bandit["apprentice"])


def _apprentice(totals: dict[str, Any] | None) -> dict[str, object]:
    """An apprentice has no say: where it would have chosen otherwise, nothing is known."""
    if totals is None:
        return {}
    earned = f"{number(totals['earned'])} of {number(totals['actual'])}"
    share = percent(totals["share_of_reward"])
    return {
        "decisions of others": totals["decisions"],
        "agreement": percent(totals["agreement"]),
        "known to have earned": f"{earned} ({share})" if share else earned,
    }


def _arm_row(arm: dict[str, Any]) -> tuple[object, ...]:
    names = ("arm", "share", "pulls", "rewards", "effective_samples", "warm", "mean_reward")
    return tuple(arm[name] for name in names)


def _segment_row(segment: dict[str, Any], arms: list[str]) -> list[object]:
    value = segment["value"]
    shown = "(missing)" if value is None else cell(value)
    return [segment["feature"], shown, segment["n"], *(segment["shares"][arm] for arm in arms)]


def _coefficients(arms: list[dict[str, Any]]) -> Iterator[list[object]]:
    """A row for each column of the context: what it adds to each arm's reward, with 95 % intervals."""
    for found in zip(*(arm["coefficients"] for arm in arms), strict=True):
        yield [found[0]["column"], *(interval(one) for one in found)]
