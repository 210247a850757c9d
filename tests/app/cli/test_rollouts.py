"""What a person does about a route's traffic, against a whole server."""

from __future__ import annotations

import pytest

from tests.app.cli.programs import Session


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
