"""What happened and what was counted, as people and scripts read it, from a whole server with traffic."""

from __future__ import annotations

import time
from datetime import UTC, datetime

import httpx

from tests.app.cli.conftest import declared
from tests.app.cli.programs import Session

SHORT_DAYS = "policy: {min_samples: 5, min_conversions: 0, minimum_days: 1, day: {length: 1s}}\n"


def decide(kingmaker: Session, route: str, times: int) -> None:
    """Take decisions at the gateway, and report that each converted."""
    with httpx.Client(base_url=kingmaker.server.gateway) as gateway:
        for index in range(times):
            answer = gateway.post(f"/v1/decide/{route}", json={"unit": f"u{index}"})
            assert answer.status_code == 200, answer.text
            outcome = {"decision": answer.json()["decision"], "metric": "conversion", "value": index % 2}
            assert gateway.post("/v1/outcomes", json=outcome).status_code == 202


def wait_for_gateway(kingmaker: Session, route: str) -> None:
    """Until the gateway knows a route."""
    until = time.monotonic() + 30
    while httpx.post(f"{kingmaker.server.gateway}/v1/decide/{route}", json={}).status_code != 200:
        assert time.monotonic() < until
        time.sleep(0.1)


def test_the_timeline_is_read_page_by_page(kingmaker: Session, route: str) -> None:
    """Newest first, with what, who and why; the last line says how to read on."""
    kingmaker.ok("start", route, "new", "--reason", "first\nlook")
    kingmaker.ok("promote", route, "--reason", "good")
    said = kingmaker.ok("timeline", route, "--limit", "2").splitlines()
    assert [line.split()[3] for line in said[1:3]] == ["promoted", "rollout_started"]
    assert said[2].endswith("first look")
    rest = kingmaker.ok("timeline", route, *said[-1].split(": ")[1].split()).splitlines()
    assert len(rest) == 2
    assert "route_created" in rest[1]


def test_the_champion_of_a_moment(kingmaker: Session, route: str) -> None:
    """Before a promotion the old one, since and until when; after it the new one, and what made it so."""
    before = datetime.now(UTC).isoformat()
    kingmaker.ok("start", route, "new", "--reason", "look")
    kingmaker.ok("promote", route, "--reason", "looks good")
    then = kingmaker.document("get", "champion", route, "--at", before)
    now = kingmaker.document("get", "champion", route)
    assert (then["champion"], now["champion"], now["until"]) == ("old", "new", None)
    assert then["until"] == now["since"]
    shown = dict(line.split(maxsplit=1) for line in kingmaker.ok("get", "champion", route).splitlines())
    assert (shown["champion"], shown["until"], shown["reason"]) == ("new", "still", "looks good")


def test_a_time_that_is_none_is_refused(kingmaker: Session, route: str) -> None:
    """The message names the field."""
    assert "at " in kingmaker.refused("get", "champion", route, "--at", "yesterday")
    assert "did not exist" in kingmaker.refused("get", "champion", route, "--at", "2020-01-01T00:00:00Z")


def test_where_nothing_happened_it_says_so(kingmaker: Session, route: str) -> None:
    """Empty answers are sentences for people and empty lists for scripts."""
    assert kingmaker.ok("get", "evaluations", route) == "no evaluations\n"
    assert kingmaker.ok("get", "metrics", route) == "nothing was counted in these days\n"
    assert kingmaker.document("get", "evaluations", route)["evaluations"] == []


def test_counts_and_evaluations_of_a_trial_are_shown(kingmaker: Session, name: str) -> None:
    """Decisions and outcomes stand under day, arm and metric; each judged day is a line with its verdict."""
    kingmaker.ok("apply", "-f", "-", text=declared(name, window="1s", more=SHORT_DAYS))
    kingmaker.ok("start", name, "new", "--share", "5000", "--reason", "look")
    wait_for_gateway(kingmaker, name)
    decide(kingmaker, name, 60)
    kingmaker.eventually("get", "metrics", name)
    found = kingmaker.eventually("get", "evaluations", name, "--challenger", "new")["evaluations"][-1]
    shown = kingmaker.ok("get", "evaluations", name, "--limit", "1000").splitlines()
    assert [found["day"], "new", found["verdict"], found["action"]] == next(
        line.split()[1:5] for line in shown if line.split()[0] == str(found["id"])
    )
    heading, *rows = kingmaker.ok("get", "metrics", name).splitlines()
    assert heading.split() == ["day", "arm", "decisions", "deciding", "metric", "n", "sum", "mean", "late"]
    assert {row.split()[1] for row in rows} == {"old", "new"}
    assert any("conversion" in row for row in rows)
    assert kingmaker.ok("get", "metrics", name, "--to", "2020-01-01").startswith("nothing was counted")
