"""Who is pinned where, as people and scripts say and read it."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta

import pytest

from tests.app.cli.programs import Session, invoke


@pytest.fixture
def pinned(kingmaker: Session, route: str) -> str:
    """A route where two users get `new`, and half of the old apps keep `old`, at a higher priority."""
    old_app = ("--when", "header.X-App semver_lt 2.1.0", "--share", "5000", "--priority", "200")
    kingmaker.ok("override", "add", route, "new", "--when", "unit in u1,u2", "--reason", "they asked for it")
    kingmaker.ok("override", "add", route, "old", *old_app, "--reason", "it breaks on new")
    return route


def words(line: str) -> str:
    """A line of a table, with one space between its cells."""
    return " ".join(line.split())


def test_an_override_is_added_and_shown(kingmaker: Session, route: str) -> None:
    """With its id and all of it; whoever wants a while says how long."""
    until = "2999-12-31T12:00:00Z"
    conditions = ("--when", "unit in u1,u2", "--when", "method equals POST")
    reason = ("--reason", "they asked for it")
    said = kingmaker.ok("override", "add", route, "new", *conditions, "--expires", until, *reason)
    lines = [words(line) for line in said.splitlines()]
    assert lines[1:] == [
        "arm new",
        "when unit in u1,u2; method equals POST",
        "share (bp) 10000",
        "priority 100",
        "expires 2999-12-31 12:00:00Z",
        "reason they asked for it",
    ]
    before = datetime.now(UTC)
    made = kingmaker.document("override", "add", route, "new", "--for", "2h", "--share", "1", *reason)
    assert lines[0] == f"override {made['id'] - 1}"
    left = datetime.fromisoformat(made["expires_at"]) - before
    assert timedelta(hours=2) <= left < timedelta(hours=2, minutes=2)
    assert (made["when"], made["share"], made["state"]) == ([], 1, "active")


def test_they_are_listed_in_order(kingmaker: Session, pinned: str) -> None:
    """The highest priority first, with what each has pinned; a route without any says so."""
    heading, first, second = (words(line) for line in kingmaker.ok("override", "list", pinned).splitlines())
    assert heading.endswith("matched (1 h) (24 h) last who reason")
    assert first.split()[1:7] == ["200", "old", "header.X-App", "semver_lt", "2.1.0", "5000"]
    assert second.endswith("100 new unit in u1,u2 10000 active never 0 0 - local they asked for it")
    found = kingmaker.document("override", "list", pinned)["overrides"]
    assert [each["priority"] for each in found] == [200, 100]


def test_one_is_removed_by_its_id(kingmaker: Session, pinned: str) -> None:
    """With a reason, for the timeline; what is gone cannot be removed."""
    gone = str(kingmaker.document("override", "list", pinned)["overrides"][0]["id"])
    removal = ("override", "remove", pinned, gone, "--reason", "it is mended")
    assert kingmaker.ok(*removal) == f"override {gone} is removed\n"
    assert f"no override with the id {gone}" in kingmaker.refused(*removal)
    row = words(kingmaker.ok("timeline", pinned, "--limit", "1").splitlines()[1])
    assert "override_removed local old" in row
    assert row.endswith("it is mended")
    kingmaker.ok("override", "remove", pinned, str(int(gone) - 1), "--reason", "nor this one")
    assert kingmaker.ok("override", "list", pinned) == "no overrides\n"


def test_a_dry_run_tells_every_step(kingmaker: Session, pinned: str) -> None:
    """Who it is for, what comes of it, and for each step why."""
    asked = ("override", "dry-run", pinned, "--unit", "u1", "--header", "X-App: 2.2.0", "--context", "hour=3")
    facts, steps = (part.splitlines() for part in kingmaker.ok(*asked).split("\n\n"))
    first, second = (each["id"] for each in kingmaker.document("override", "list", pinned)["overrides"])
    assert [words(line) for line in facts] == [
        "unit u1",
        "arm new",
        "reason OVERRIDE",
        f"override {second}",
        "propensity 100.0 %",
        "probabilities new 100.0 %",
        "context -",
        "missing features -",
        "unknown features hour",
    ]
    *told, split = (words(line) for line in steps)
    assert told == [
        "step arm outcome why",
        "kill switch - off -",
        "forced arm - not_asked -",
        f"override {first} (priority 200) old condition header.X-App semver_lt 2.1.0: it has 2.2.0",
        f"override {second} (priority 100) new matched -",
    ]
    assert split.startswith("split old preceded bucket ")
    document = kingmaker.document(*asked, "--path", "/x", "--method", "PUT", "--force", "old")
    assert (document["arm"], document["steps"][1]["outcome"]) == ("new", "not_allowed")


def test_without_a_unit_it_tells_chances(kingmaker: Session, pinned: str) -> None:
    """What each request draws for itself is not made up."""
    said = kingmaker.ok("override", "dry-run", pinned, "--header", "X-App: 1.0.0")
    lines = [words(line) for line in said.splitlines()]
    assert "arm old" not in lines
    assert lines[1] == "arm drawn by each request"
    assert any(line.endswith("old drawn pins 50.0 % of such requests") for line in lines)


def test_pinning_reaches_the_gateway(kingmaker: Session, pinned: str) -> None:
    """What a dry run says is what the decide endpoint answers."""
    import httpx  # noqa: PLC0415 - only this one calls the gateway

    url = f"{kingmaker.server.gateway}/v1/decide/{pinned}"
    until = time.monotonic() + 20
    while (found := httpx.post(url, json={"unit": "u1"}, trust_env=False).json())["reason"] != "OVERRIDE":
        assert time.monotonic() < until, found
        time.sleep(0.05)
    said = kingmaker.document("override", "dry-run", pinned, "--unit", "u1")
    shared = ("arm", "reason", "propensity", "probabilities")
    assert {name: found[name] for name in shared} == {name: said[name] for name in shared}


@pytest.mark.parametrize(
    "arguments",
    [
        ("add", "ads", "new"),
        ("add", "ads", "new", "--reason", "x", "--when", "unit"),
        ("add", "ads", "new", "--reason", "x", "--for", "soon"),
        ("add", "ads", "new", "--reason", "x", "--for", "999999999999d"),
        ("add", "ads", "new", "--reason", "x", "--for", "1h", "--expires", "2999-01-01T00:00:00Z"),
        ("remove", "ads", "first", "--reason", "x"),
        ("remove", "ads", "1"),
        ("dry-run", "ads", "--header", "X-App"),
        ("dry-run", "ads", "--context", "=3"),
    ],
)
def test_bad_usage_has_exit_code_2(arguments: tuple[str, ...]) -> None:
    """Nothing is asked of any server."""
    ran = invoke("override", *arguments, env={"KINGMAKER_SERVER": "http://127.0.0.1:1"})
    assert ran.exit_code == 2
    assert ran.stderr


def test_what_the_server_refuses_is_said_by_field(kingmaker: Session, route: str) -> None:
    """With bound and value, on stderr."""
    wrong = ("--when", "unit in", "--priority", "-1", "--reason", "x")
    said = kingmaker.refused("override", "add", route, "third", *wrong)
    for part in (
        "arm must be an arm",
        "when.0.values must hold 1 to 10000",
        "priority must be in [0, 1000000]",
    ):
        assert part in said
