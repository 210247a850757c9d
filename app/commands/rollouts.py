"""What does a person do about a route's traffic, and where does it stand afterwards?"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any

import typer
from rich.console import RenderableType

from app.commands.answers import connect, show
from app.commands.local_kills import Order, kill_here
from app.commands.options import DEFAULT_SERVER, DataDir, Json, Key, Route, Server, SettingsFile
from app.commands.serving import settings_in_database
from app.commands.splits import BANDIT, MODES
from app.tables import cell, facts, moment, streak, table

Reason = Annotated[
    str, typer.Option("--reason", metavar="TEXT", show_default=False, help="Why, for the timeline.")
]
Arm = Annotated[
    str | None,
    typer.Option(
        "--arm",
        metavar="ARM",
        show_default=False,
        help="The challenger; needed only where several are on trial.",
    ),
]


def start(
    route: Route,
    arm: Annotated[str, typer.Argument(metavar="ARM", show_default=False, help="The challenger.")],
    reason: Reason,
    share: Annotated[
        int | None,
        typer.Option(
            "--share",
            metavar="BP",
            show_default="the server's, 1000",
            help="Its share in basis points (10000 is all traffic).",
        ),
    ] = None,
    server: Server = DEFAULT_SERVER,
    key: Key = None,
    as_json: Json = False,
) -> None:
    """Put a challenger on trial, for the first time or again."""
    _act(route, "start", _given(arm=arm, reason=reason, share=share), server, key, as_json)


def promote(
    route: Route,
    reason: Reason,
    arm: Arm = None,
    server: Server = DEFAULT_SERVER,
    key: Key = None,
    as_json: Json = False,
) -> None:
    """Make a challenger the champion now, with all traffic."""
    _act(route, "promote", _given(arm=arm, reason=reason), server, key, as_json)


def rollback(
    route: Route,
    reason: Reason,
    arm: Arm = None,
    server: Server = DEFAULT_SERVER,
    key: Key = None,
    as_json: Json = False,
) -> None:
    """Take a challenger's traffic away.

    Right after a promotion, or with the champion named, the previous champion returns.
    """
    _act(route, "rollback", _given(arm=arm, reason=reason), server, key, as_json)


def approve(
    route: Route,
    reason: Reason,
    arm: Arm = None,
    server: Server = DEFAULT_SERVER,
    key: Key = None,
    as_json: Json = False,
) -> None:
    """Take the step that was earned and waits for a person."""
    _act(route, "approve", _given(arm=arm, reason=reason), server, key, as_json)


def pause(
    route: Route, reason: Reason, server: Server = DEFAULT_SERVER, key: Key = None, as_json: Json = False
) -> None:
    """Suspend automatic steps; guardrails stay live."""
    _act(route, "pause", {"reason": reason}, server, key, as_json)


def resume(
    route: Route, reason: Reason, server: Server = DEFAULT_SERVER, key: Key = None, as_json: Json = False
) -> None:
    """Let automatic steps go on."""
    _act(route, "resume", {"reason": reason}, server, key, as_json)


def kill(
    route: Route,
    reason: Annotated[
        str | None,
        typer.Option("--reason", metavar="TEXT", show_default=False, help="Why, for the timeline."),
    ] = None,
    off: Annotated[bool, typer.Option("--off", help="Divide the traffic by the split again.")] = False,
    local: Annotated[
        bool, typer.Option("--local", help="On this machine's workers alone; needs no control plane.")
    ] = False,
    lasting: Annotated[
        str | None,
        typer.Option(
            "--for", metavar="DURATION", show_default=False, help="With --local: for how long, as in 2h."
        ),
    ] = None,
    config: SettingsFile = None,
    data_dir: DataDir = None,
    server: Server = DEFAULT_SERVER,
    key: Key = None,
    as_json: Json = False,
) -> None:
    """Throw the kill switch: all traffic to the champion.

    With --local it needs no control plane, database or Redis: a signed command in the data folder reaches the
    workers of this machine. It holds, whatever the control plane says, until it is turned off in the same way
    or expires.
    """
    if local:
        kill_here(
            settings_in_database(config, data_dir, None).data_dir, Order(route, off, reason, lasting), as_json
        )
        return
    if lasting is not None:
        raise typer.BadParameter("--for is for --local alone")
    with connect(server, key) as control:
        where = ("routes", route, "kill-switch")
        if off:
            answer = control.delete(*where, reason=reason)
        else:
            answer = control.put(*where, body=_given(reason=reason))
    show(answer, as_json, _draw)


def get_rollout(
    route: Route, server: Server = DEFAULT_SERVER, key: Key = None, as_json: Json = False
) -> None:
    """Where traffic stands: champion, shares, trials, streaks."""
    with connect(server, key) as control:
        show(control.get("routes", route, "rollout"), as_json, _draw)


def _act(route: str, action: str, body: dict[str, Any], server: str, key: str | None, as_json: bool) -> None:
    with connect(server, key) as control:
        show(control.post("routes", route, "rollout", action, body=body), as_json, _draw)


def _given(**fields: object) -> dict[str, Any]:
    """The fields that were given; for the others the server has defaults."""
    return {name: value for name, value in fields.items() if value is not None}


def _draw(rollout: dict[str, Any]) -> Iterator[RenderableType]:
    yield facts(
        {
            "route": rollout["route"],
            "phase": rollout["phase"] if rollout["mode"] == "weights" else BANDIT,
            "champion": rollout["champion"],
            "previous champion": rollout["previous_champion"],
            "goal": rollout["goal"],
            "split": MODES[rollout["mode"]],
            "kill switch": "ON: all traffic goes to the champion" if rollout["kill_switch"] else "off",
            "automatic steps": "suspended (kingmaker resume)" if rollout["suspended"] else "on",
            "epoch": rollout["epoch"],
            "version": rollout["version"],
        }
    )
    trials = {trial["arm"]: trial for trial in rollout["trials"]}
    headings = ["arm", "share (bp)", "phase", "streak", "judged days", "judged through", "started"]
    yield table(headings, [_row(rollout, arm, trials.get(arm)) for arm in rollout["weights"]])


def _row(rollout: dict[str, Any], arm: str, trial: dict[str, Any] | None) -> list[object]:
    share = BANDIT if rollout["mode"] == "thompson" else rollout["weights"][arm]
    if trial is None:
        return [arm, share, "champion" if arm == rollout["champion"] else None, None, None, None, None]
    phase = "champion" if arm == rollout["champion"] else cell(trial["phase"])
    through, started = moment(trial["judged_through"]), moment(trial["started_at"])
    return [arm, share, phase, streak(trial["streak"]), trial["judged_days"], through, started]
