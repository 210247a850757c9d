"""`apply`, `export`, `get routes` and `get route`, against a whole server."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from tests.app.cli.conftest import declared
from tests.app.cli.programs import Session, invoke


def two(first: str, second: str) -> str:
    """A file with two routes."""
    return yaml.safe_dump({"routes": [yaml.safe_load(declared(first)), yaml.safe_load(declared(second))]})


def names(kingmaker: Session) -> set[str]:
    """The routes that there are."""
    return {route["route"] for route in kingmaker.document("get", "routes")["routes"]}


def test_a_file_is_applied_and_applied_again_changes_nothing(
    kingmaker: Session, name: str, tmp_path: Path
) -> None:
    """The first time it creates the route, the second time it says that nothing changes."""
    file = tmp_path / "route.yaml"
    file.write_text(declared(name))
    assert kingmaker.ok("apply", "-f", str(file)) == f"{name}: created\n"
    assert kingmaker.ok("apply", "--file", str(file)) == f"{name}: unchanged\n"


def test_a_dry_run_says_what_would_change_and_changes_nothing(kingmaker: Session, name: str) -> None:
    """Neither the new route nor the change to it happens."""
    assert kingmaker.ok("apply", "--dry-run", "-f", "-", text=declared(name)) == f"{name}: would be created\n"
    assert name not in names(kingmaker)
    kingmaker.ok("apply", "-f", "-", text=declared(name))
    said = kingmaker.ok("apply", "--dry-run", "-f", "-", text=declared(name, window="12h"))
    assert "would be changed" in said
    assert kingmaker.document("get", "route", name)["metrics"][0]["window"] == "24h"


def test_a_change_is_shown_field_by_field(kingmaker: Session, route: str) -> None:
    """Field, before and after; as JSON, what the server has answered for each route."""
    said = kingmaker.ok("apply", "-f", "-", text=declared(route, window="12h"))
    assert said.splitlines()[-1].split() == ["metrics.conversion.window", "24h", "12h"]
    (applied,) = kingmaker.document("apply", "-f", "-", text=declared(route, window="6h"))["routes"]
    assert applied["changes"] == [{"field": "metrics.conversion.window", "before": "12h", "after": "6h"}]
    assert applied["document"]["route"] == route


def test_what_a_rollout_has_moved_is_kept_unless_taken_over(kingmaker: Session, route: str) -> None:
    """The split of a trial stays, and `apply` says so and how to move it; --take-over moves it."""
    kingmaker.ok("start", route, "new", "--share", "500", "--reason", "first look")
    said = kingmaker.ok("apply", "-f", "-", text=declared(route))
    assert f"{route}: unchanged" in said
    assert "--take-over" in said
    assert "split.weights" in said
    assert kingmaker.document("get", "rollout", route)["weights"] == {"old": 9_500, "new": 500}
    assert "split.weights.new" in kingmaker.ok("apply", "--take-over", "-f", "-", text=declared(route))
    assert kingmaker.document("get", "rollout", route)["weights"] == {"old": 10_000, "new": 0}


def test_of_a_file_with_a_bad_route_nothing_is_applied(kingmaker: Session, name: str) -> None:
    """The good route before the bad one is not made; the message names field, bound and value."""
    bad = yaml.safe_load(declared(f"{name}-bad"))
    bad["split"]["weights"] = {"old": 9_999}
    text = yaml.safe_dump({"routes": [yaml.safe_load(declared(name)), bad]})
    said = kingmaker.refused("apply", "-f", "-", text=text)
    assert "split.weights" in said
    assert "9999" in said
    assert name not in names(kingmaker)


def test_two_routes_of_a_file_with_one_match_are_refused_before_any(kingmaker: Session, name: str) -> None:
    """No dry run of one route alone could find it."""
    text = two(name, f"{name}-too").replace(
        f"route: {name}-too", f"route: {name}-too\n  match: {{path_prefix: /r/{name}}}"
    )
    assert "routes.1.match must differ" in kingmaker.refused("apply", "-f", "-", text=text)
    assert name not in names(kingmaker)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: [", "standard input is not YAML"),
        ("arms: []", "routes.0.route must be a name, got None"),
        ("route: a\nlabels: {since: 2026-01-31}", "quote dates"),
        ("route: a\nlimit: .nan", "must hold what JSON can say"),
        ("[]", "must hold one route or a list"),
    ],
)
def test_a_file_that_declares_nothing_is_refused_here(text: str, message: str) -> None:
    """Exit code 1, without asking any server; the message says what is wrong where."""
    ran = invoke("apply", "-f", "-", "--server", "http://127.0.0.1:9", text=text)
    assert (ran.exit_code, ran.stdout) == (1, "")
    assert message in ran.stderr


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    """Neither a missing file nor one of other bytes ends in a trace."""
    binary = tmp_path / "binary"
    binary.write_bytes(b"\xff\xfe\x00")
    for file in (tmp_path / "missing.yaml", tmp_path, binary):
        ran = invoke("apply", "-f", str(file))
        assert ran.exit_code == 1
        assert f"file {file} cannot be read" in ran.stderr


def test_what_is_exported_can_be_applied(kingmaker: Session, name: str) -> None:
    """One route or all, as YAML or JSON: applied again, nothing changes, even after a promotion."""
    more = "unit: {json: /user/id}\nmatch: {path_prefix: /v1/chat, host: chat.example}\nallow_force: true\n"
    arms = '{name: old, url: "http://127.0.0.1:9001/score", role: champion}'
    headers = arms.replace("}", ", headers: {Authorization: {env: TOKEN}, X: 'on'}}")
    kingmaker.ok("apply", "-f", "-", text=declared(name, more=more).replace(arms, headers))
    kingmaker.ok("start", name, "new", "--reason", "look")
    kingmaker.ok("promote", name, "--reason", "good")
    one, everything = kingmaker.ok("export", name), kingmaker.ok("export")
    assert yaml.safe_load(one)["route"] == name
    assert name in {route["route"] for route in yaml.safe_load(everything)["routes"]}
    for text in (one, everything, kingmaker.ok("export", name, "--json")):
        applied = kingmaker.document("apply", "-f", "-", text=text)["routes"]
        assert [(route["changes"], route["kept"]) for route in applied] == [([], [])] * len(applied)


def test_a_file_without_routes_changes_nothing(kingmaker: Session) -> None:
    """An empty list is fine, and said to be one."""
    assert kingmaker.ok("apply", "-f", "-", text="routes: []") == "no routes\n"


def test_settings_in_a_file_are_left_alone_and_said_to_be(kingmaker: Session, name: str) -> None:
    """Its routes are declared; a note on stderr says who reads the rest, and JSON stays one document."""
    text = f"gateway: {{body_bytes: 1MiB}}\nserver: {{workers: 2}}\n{declared(name)}"
    ran = kingmaker("apply", "-f", "-", text=text)
    assert (ran.exit_code, ran.stdout) == (0, f"{name}: created\n")
    assert "standard input also holds settings (gateway, server), which apply leaves alone" in ran.stderr
    ran = kingmaker("apply", "-f", "-", "--json", text=text)
    assert json.loads(ran.stdout)["routes"][0]["route"] == name
    ran = kingmaker("apply", "-f", "-", text="gateway: {body_bytes: 1MiB}")
    assert (ran.exit_code, ran.stdout) == (0, "no routes\n")


def test_a_shadow_is_exported_applied_and_shown(kingmaker: Session, name: str) -> None:
    """With its sample; applied again, nothing changes."""
    dark = '  - {name: dark, url: "http://127.0.0.1:9003/", role: shadow, sample: 0.25}\nsplit:'
    more = (
        "predictions: [{name: score, from: {response: /score}, type: numeric}]\n"
        "upstream: {hedge_after: 100ms, health_check: {path: /healthz}, ejection: {base_time: 1m}}\n"
    )
    kingmaker.ok("apply", "-f", "-", text=declared(name, more=more).replace("split:", dark))
    assert "shadow of 0.25" in kingmaker.ok("get", "route", name)
    for text in (kingmaker.ok("export", name), kingmaker.ok("export", name, "--json")):
        assert "health_check" in text
        (applied,) = kingmaker.document("apply", "-f", "-", text=text)["routes"]
        assert (applied["changes"], applied["kept"]) == ([], [])


def test_routes_are_listed_and_shown(kingmaker: Session, route: str) -> None:
    """A line a route; a route with its arms, metrics and policy, and labels as they were written."""
    line = next(line for line in kingmaker.ok("get", "routes").splitlines() if line.startswith(f"{route} "))
    assert line.split() == [route, "old", "old", "10000", "conversion", f"/r/{route}"]
    shown = kingmaker.ok("get", "route", route)
    assert "owner [team]" in shown
    assert "each request" in shown
    assert "winning_days" in shown


BANDIT = "split: {mode: thompson, reward: {metric: conversion}, floor: 200, cap: {new: 3000}}"


def with_bandit(kingmaker: Session, name: str, more: str = "") -> str:
    """A route whose traffic a bandit divides."""
    weights = "split: {weights: {old: 10000}}"
    kingmaker.ok(
        "apply", "-f", "-", text=declared(name).replace(weights, BANDIT.replace("}}", f"}}{more}}}"))
    )
    return name


def test_routes_with_a_bandit_are_listed_and_shown(kingmaker: Session, name: str) -> None:
    """With its mode, floor and caps where others have weights; no arm has a share of its own."""
    with_bandit(kingmaker, name)
    line = next(line for line in kingmaker.ok("get", "routes").splitlines() if line.startswith(f"{name} "))
    assert "thompson, floor 200, cap new 3000" in line
    shown = [line.split() for line in kingmaker.ok("get", "route", name).splitlines()]
    assert ["split", "thompson,", "floor", "200,", "cap", "new", "3000"] in shown
    assert [line[:3] for line in shown if line[:1] in (["old"], ["new"])] == [
        ["old", "champion", "bandit"],
        ["new", "challenger", "bandit"],
    ]
    assert kingmaker.document("get", "route", name)["split"]["mode"] == "thompson"
    assert "mode: thompson" in kingmaker.ok("export", name)


def test_an_apprentice_has_no_share(kingmaker: Session, name: str) -> None:
    """The champion has all of it."""
    with_bandit(kingmaker, name, ", apprentice: true")
    shown = [line.split() for line in kingmaker.ok("get", "route", name).splitlines()]
    assert [line[2] for line in shown if line[:1] in (["old"], ["new"])] == ["10000", "0"]
    assert "apprentice, floor 200" in kingmaker.ok("get", "routes")


def test_what_is_refused_names_its_route_once(kingmaker: Session, name: str) -> None:
    """Whether the message of the control plane does, or the command."""
    bad = declared(name).replace("old: 10000", "old: 9999")
    assert kingmaker.refused("apply", "-f", "-", text=bad).count(f"route {name!r}") == 1
    unknown = declared(name, more="crown: gold\n")
    assert kingmaker.refused("apply", "-f", "-", text=unknown).count(f"route {name!r}") == 1
    keep = "unit: {header: X}\nstickiness: {mode: first_arm, keep: 500d}\n"
    said = kingmaker.refused("apply", "-f", "-", text=declared(name, more=keep))
    assert "must be in [1000, 31536000000] ms, got 43200000000 (1s to 365d)" in said
