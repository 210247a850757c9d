"""What a person does about a route's traffic, against a whole server."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.app.cli.conftest import declared
from tests.app.cli.programs import Session, invoke


def weights(kingmaker: Session, route: str) -> dict[str, int]:
    """The split as it stands."""
    found: dict[str, int] = kingmaker.document("get", "rollout", route)["weights"]
    return found


def last(kingmaker: Session, route: str) -> tuple[str, str, str]:
    """What happened last, who did it, and why."""
    (entry,) = kingmaker.document("timeline", route, "--limit", "1")["timeline"]
    return entry["kind"], entry["actor"], entry["reason"]


def test_a_challenger_is_started_and_promoted(kingmaker: Session, route: str) -> None:
    """It gets the share that was named, then the crown; the timeline keeps the reasons."""
    said = kingmaker.ok("start", route, "new", "--share", "500", "--reason", "first look")
    assert [line.split()[:3] for line in said.splitlines()[-2:]] == [
        ["old", "9500", "champion"],
        ["new", "500", "trial"],
    ]
    assert last(kingmaker, route) == ("rollout_started", "local", "first look")
    rollout = kingmaker.document("promote", route, "--arm", "new", "--reason", "good")
    assert (rollout["champion"], rollout["phase"]) == ("new", "promoted")
    assert last(kingmaker, route) == ("promoted", "local", "good")


def test_without_a_share_the_servers_default_counts(kingmaker: Session, route: str) -> None:
    """1,000 basis points."""
    kingmaker.ok("start", route, "new", "--reason", "look")
    assert weights(kingmaker, route) == {"old": 9_000, "new": 1_000}


def test_a_rollback_takes_the_traffic_away_and_then_the_crown_back(kingmaker: Session, route: str) -> None:
    """On trial, the challenger loses its share; after a promotion, the previous champion returns."""
    kingmaker.ok("start", route, "new", "--reason", "look")
    kingmaker.ok("rollback", route, "--reason", "tickets")
    assert weights(kingmaker, route) == {"old": 10_000, "new": 0}
    kingmaker.ok("start", route, "new", "--reason", "again")
    kingmaker.ok("promote", route, "--reason", "good")
    assert kingmaker.document("rollback", route, "--reason", "worse after all")["champion"] == "old"


def test_steps_are_suspended_and_go_on(kingmaker: Session, route: str) -> None:
    """`pause` and `resume` say which it is, and how to go on."""
    kingmaker.ok("start", route, "new", "--reason", "look")
    assert "kingmaker resume" in kingmaker.ok("pause", route, "--reason", "holiday")
    assert kingmaker.document("get", "rollout", route)["suspended"] is True
    assert "kingmaker resume" not in kingmaker.ok("resume", route, "--reason", "back")


def test_the_kill_switch_needs_no_reason_and_comes_off_again(kingmaker: Session, route: str) -> None:
    """In an emergency the command is short; with a reason, the timeline keeps it."""
    assert "ON" in kingmaker.ok("kill", route)
    assert last(kingmaker, route)[0] == "kill_switch_on"
    assert (
        kingmaker.document("kill", route, "--off", "--reason", "incident 42 is over")["kill_switch"] is False
    )
    assert last(kingmaker, route) == ("kill_switch_off", "local", "incident 42 is over")
    kingmaker.ok("kill", route, "--reason", "incident 43")
    assert last(kingmaker, route) == ("kill_switch_on", "local", "incident 43")
    assert "ON" not in kingmaker.ok("kill", route, "--off")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ("start", "ROUTE", "new", "--share", "10000", "--reason", "x"),
            "got 10000",
        ),
        (("start", "ROUTE", "nobody", "--reason", "x"), "nobody"),
        (("approve", "ROUTE", "--reason", "x"), "no step waits for approval"),
        (("promote", "ROUTE", "--reason", "x"), "challenger"),
        (("promote", "ROUTE", "--arm", "nobody", "--reason", "x"), "nobody"),
        (("pause", "ROUTE", "--reason", ""), "reason"),
    ],
)
def test_what_cannot_be_is_refused(
    kingmaker: Session, route: str, arguments: tuple[str, ...], message: str
) -> None:
    """Exit code 1 with the server's reason, and the traffic stays."""
    named = [route if argument == "ROUTE" else argument for argument in arguments]
    assert message in kingmaker.refused(*named)
    assert weights(kingmaker, route) == {"old": 10_000, "new": 0}


def test_a_challenger_is_named_by_its_flag_where_several_are_on_trial(kingmaker: Session, route: str) -> None:
    """The refusal says so, and names them."""
    third = '{name: third, url: "http://127.0.0.1:9003/score"}\nsplit:'
    kingmaker.ok("apply", "-f", "-", text=declared(route).replace("split:", f"  - {third}"))
    for arm in ("new", "third"):
        kingmaker.ok("start", route, arm, "--share", "500", "--reason", "look")
    for action in ("promote", "rollback"):
        said = kingmaker.refused(action, route, "--reason", "x")
        assert "on the command line with --arm: 2 are on trial ['new', 'third']" in said
        assert weights(kingmaker, route) == {"old": 9_000, "new": 500, "third": 500}


@pytest.mark.parametrize(
    "arguments",
    [
        ("start", "ROUTE", "new"),
        ("pause", "ROUTE"),
        ("kill", "ROUTE"),
        ("kill", "ROUTE", "--off"),
        ("override", "add", "ROUTE", "new"),
        ("override", "remove", "ROUTE", "1"),
    ],
)
def test_a_reason_of_spaces_is_none(kingmaker: Session, route: str, arguments: tuple[str, ...]) -> None:
    """In the body and in the query."""
    named = [route if argument == "ROUTE" else argument for argument in arguments]
    said = kingmaker.refused(*named, "--reason", "  ")
    assert "reason must hold something besides spaces, got '  '" in said


def test_a_bandit_stands_where_it_divides(kingmaker: Session, route: str) -> None:
    """Neither the champion's 10,000 nor the phase of an earlier trial is told of a bandit's traffic."""
    kingmaker.ok("start", route, "new", "--reason", "look")
    kingmaker.ok("promote", route, "--reason", "good")
    text = declared(route).replace(
        "{weights: {old: 10000}}", "{mode: thompson, reward: {metric: conversion}}"
    )
    kingmaker.ok(
        "apply",
        "--take-over",
        "-f",
        "-",
        text=text.replace(", role: champion", "").replace('score", labels', 'score", role: champion, labels'),
    )
    kingmaker.ok("override", "add", route, "old", "--when", "unit equals u1", "--reason", "asked for")
    lines = [line.split() for line in kingmaker.ok("get", "rollout", route).splitlines()]
    assert ["phase", "bandit"] in lines
    assert [line[:2] for line in lines[-2:]] == [["old", "bandit"], ["new", "bandit"]]
    _, *rows = kingmaker.ok("timeline", route).splitlines()
    assert [row.split()[3] for row in rows if " bandit " in row] == ["override_added", "route_changed"]
    newest = kingmaker.ok("timeline", route, "--limit", "1").splitlines()[1]
    assert " bandit " in newest
    assert "new 10000" not in newest
    crowned = kingmaker.ok("get", "champion", route).splitlines()
    assert ["split", "(bp)", "new", "10000"] in [line.split() for line in crowned], "it was crowned by hand"


def test_a_local_switch_needs_a_reason_of_more_than_spaces(tmp_path: Path) -> None:
    """It is kept with the switch, and no control plane looks at it."""
    ran = invoke("kill", "ads", "--local", "--reason", "  ", "--data-dir", str(tmp_path))
    assert (ran.exit_code, ran.stdout) == (2, "")
    assert "--local needs a --reason" in " ".join(ran.stderr.split())


def test_a_champion_beside_a_bandit_has_no_share(kingmaker: Session, name: str) -> None:
    """Where it was crowned while the bandit divided."""
    bandit = "{mode: thompson, reward: {metric: conversion}}"
    kingmaker.ok("apply", "-f", "-", text=declared(name).replace("{weights: {old: 10000}}", bandit))
    crowned = [line.split() for line in kingmaker.ok("get", "champion", name).splitlines()]
    assert ["split", "(bp)", "bandit"] in crowned
